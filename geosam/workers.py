"""Work spread over the workers of a dask cluster; without one it is done here.

A piece of work is a function of a scene and of a few items. A worker opens the scene itself, once,
from its address, and writes features straight into the store; what it gives back is small.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from geosam import __version__
from geosam.errors import ClusterError, GeosamError
from tiles import TilesError

if TYPE_CHECKING:
    from distributed import Client, Future

    from geosam.scene import Address, Scene

Item = TypeVar("Item")
Result = TypeVar("Result")
Outcome = list[Result] | GeosamError | TilesError
Work = Callable[["Scene", Sequence[Item]], Iterable[Result]]

MOST_AT_ONCE = 16  # items; what is lost with a worker, and a GPU's batch
SHARES = 4  # of the items, a worker's thread: who is done early takes more
AHEAD = 64  # pieces of work that wait at least: workers never wait for the one who asks
CONNECT_S = 10.0
WORKERS_S = 60.0  # for the first worker to come
PATIENCE_S = 300.0  # with a cluster that has lost all of its workers

_opening = threading.Lock()


@contextmanager
def connected(url: str | None) -> "Iterator[Client | None]":
    """A client of the cluster whose scheduler is at a URL; None stands for no cluster.

    Raises:
        ClusterError: dask is not installed, nobody answers at the URL, or there are no workers.
    """
    if url is None:
        yield None
        return
    try:
        from distributed import Client  # only who asks for a cluster has dask
    except ImportError as error:
        raise ClusterError(
            f"Cluster {url}: dask is not installed (expected distributed). Run "
            "`pip install geosam-toolkit[dask]`."
        ) from error
    try:
        client = Client(url, timeout=CONNECT_S, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"Cluster {url}: {error} (expected the scheduler of a dask cluster). Start one with "
            "`dask scheduler`, or correct the address."
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=WORKERS_S)
        except TimeoutError as error:
            raise ClusterError(
                f"Cluster {url}: no worker came within {WORKERS_S:.0f} s (expected at least one). "
                f"Start some with `dask worker {url} --nthreads 1`."
            ) from error
        yield client


def share(total: int, client: "Client | None") -> int:
    """How many of so many items to do at once: all of them here, a small part in a worker."""
    if client is None:
        return max(total, 1)
    return min(max(total // (SHARES * _threads(client)), 1), MOST_AT_ONCE)


def spread(
    work: Work[Item, Result],
    scene: "Scene",
    pieces: Iterable[Sequence[Item]],
    client: "Client | None",
) -> Generator[Result]:
    """The results of all pieces of work, in their order.

    A piece whose worker dies is done again by another one, so it must be such that nothing is
    spoiled by that.

    Args:
        work: results of some items on a scene; a function of a module, or a partial one, that can
            be pickled. It runs here, step by step as results are taken, if there is no client.
        scene: what it works on.
        pieces: the items of each piece, taken as they are needed; few at once, see `share`.
        client: of the cluster.

    Raises:
        ClusterError: the cluster is lost, or a worker cannot open the scene.
    """
    if client is None:
        for items in pieces:
            yield from work(scene, items)
        return
    address, queue = scene.address(), iter(pieces)
    most = max(AHEAD, SHARES * _threads(client))
    waiting: deque[Future[Outcome[Result]]] = deque()
    while True:
        for items in islice(queue, most - len(waiting)):
            waiting.append(client.submit(_in_worker, work, address, items, __version__, pure=False))
        if not waiting:
            return
        yield from _result(waiting.popleft(), client)


def _in_worker(
    work: Work[Item, Result], address: "Address", items: Sequence[Item], version: str
) -> Outcome[Result]:
    """What a worker does. An error is given back bare: what caused it need not be a pickle."""
    try:
        return list(work(_scene_at(address, version), items))
    except (GeosamError, TilesError) as error:
        error.__cause__ = error.__context__ = None
        return error.with_traceback(None)


def _scene_at(address: "Address", version: str) -> "Scene":
    from distributed import get_worker

    here = f"Worker {get_worker().address}"
    if version != __version__:
        raise ClusterError(
            f"{here}: geosam {__version__} (expected geosam {version}). Install the same version."
        )
    try:
        with _opening:
            return _opened(address)
    except (GeosamError, TilesError) as error:
        raise ClusterError(
            f"{here}: cannot open what it is to work on (expected raster, store and weights as "
            "where it was asked). Put them on a disk or URL that all machines see under one name. "
            f"What failed there: {error}"
        ) from error


@lru_cache(maxsize=1)
def _opened(address: "Address") -> "Scene":
    return address.open()


def _result(future: "Future[Outcome[Result]]", client: "Client") -> list[Result]:
    from distributed import KilledWorker

    try:
        found = _awaited(future, client)
    except CancelledError as error:
        raise _lost(client) from error
    except KilledWorker as error:
        raise ClusterError(
            f"Cluster {_name(client)}: one piece of work ended several workers (expected them to "
            "live). Look at their logs; if memory ran out, start fewer of them on a machine."
        ) from error
    if isinstance(found, GeosamError | TilesError):
        raise found
    return found


def _awaited(future: "Future[Outcome[Result]]", client: "Client") -> Outcome[Result]:
    """What a piece of work gave, as long as there are workers that could do it."""
    while True:
        try:
            return future.result(timeout=PATIENCE_S)
        except TimeoutError as error:
            if not _workers(client):
                raise ClusterError(
                    f"Cluster {_name(client)}: no worker is left (expected at least one). The "
                    "tiles that are done are kept: start workers and ask for the same again."
                ) from error


def _threads(client: "Client") -> int:
    return max(sum(_workers(client).values()), 1)


def _workers(client: "Client") -> dict[str, int]:
    """The workers of a cluster, each with how many threads it has."""
    try:
        found: dict[str, int] = client.nthreads()  # type: ignore[no-untyped-call]
    except (OSError, RuntimeError, CancelledError) as error:
        raise _lost(client) from error
    return found


def _lost(client: "Client") -> ClusterError:
    return ClusterError(
        f"Cluster {_name(client)}: its scheduler is gone (expected it to stay). The tiles that are "
        "done are kept: ask for the same again, with or without a cluster."
    )


def _name(client: "Client") -> str:
    return str(client.scheduler.address if client.scheduler else "without a scheduler")
