"""A long-lived server of one client over a pair of streams: requests in, answers out.

Two lanes work side by side, so that an outline does not wait for a scene to be encoded.
"""

import logging
from typing import Any, BinaryIO

from geosam.errors import GeosamError, ProtocolError
from geosam.serve.operations import NEWEST, SLOW, Operations, perform
from geosam.serve.session import Loader, Session
from geosam.serve.tasks import Cancelled, Lane, Task
from geosam.serve.wire import Message, Wire
from tiles import TilesError

log = logging.getLogger(__name__)

CLOSING_S = 2.0


def serve(incoming: BinaryIO, outgoing: BinaryIO, load: Loader) -> bool:
    """Answer requests until the incoming stream ends.

    Args:
        incoming: requests, one JSON object a line.
        outgoing: answers and events, one JSON object a line.
        load: gives the model of a name, a device, a precision and a backend, see `load_model`.

    Returns:
        Whether all work had come to rest; else a thread is still busy.
    """
    wire = Wire(incoming, outgoing)
    operations = Operations(Session(load))

    def do(task: Task) -> None:
        try:
            task.check()
            wire.send({"id": task.id, "ok": perform(operations, task)})
        except Cancelled as why:
            wire.fail(task.id, why)
        except (GeosamError, TilesError) as error:
            wire.fail(task.id, error)
        except Exception as error:  # a client must hear of it, and others go on
            log.exception("Request %s, %s", task.id, task.op)
            wire.fail(task.id, error, "InternalError")

    quick, slow = Lane("quick", do, NEWEST), Lane("slow", do)
    for message in wire:
        try:
            task = _task(message, wire)
        except ProtocolError as error:
            wire.fail(message.get("id"), error)
            continue
        if task.op == "cancel":
            target = task.given.get("request")
            wire.send({"id": task.id, "ok": {"cancelled": quick.end(target) or slow.end(target)}})
        else:
            (slow if task.op in SLOW else quick).put(task)
    rested = [lane.close(CLOSING_S) for lane in (quick, slow)]
    return all(rested)


def _task(message: Message, wire: Wire) -> Task:
    given: dict[str, Any] = dict(message)
    name, op = given.pop("id", None), given.pop("op", None)
    if not isinstance(name, int | str) or isinstance(name, bool) or not isinstance(op, str):
        raise ProtocolError(
            f"Request: id {name!r}, op {op!r} (expected an id, a number or text, and the name of "
            "an operation)."
        )
    return Task(name, op, given, wire)
