"""The process that a fault meets: the `geosam` command itself, forked from one that has loaded it.

The forks' model floods colours, so that tiles take no time; demo and train run nano.
"""

import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import geosam.__main__
import geosam.cli
import geosam.model
import geosam.training.fine_tuning
from geosam import registry
from geosam.cli.shared import ProgressLine
from geosam.registry import WeightsFile
from tests.fakes import FloodModel

SIZE = 128
WAIT_S = 300
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__])


@dataclass(frozen=True)
class Ill:
    """What befalls the process, and when.

    Attributes:
        sends: this signal to itself ...
        before: ... before something gets this name,
        after: or after it,
        progress: or at this step of progress.
        file_bytes: of which its files can be no larger.
        clock: jumps to and fro by decades.
        stdout: where its standard output goes.
    """

    sends: int | None = None
    before: str | None = None
    after: str | None = None
    progress: int | None = None
    file_bytes: int | None = None
    clock: bool = False
    stdout: str = "stdout"


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    stdout: str
    stderr: str


class Command:
    """A `geosam` command that runs in a folder."""

    def __init__(
        self, folder: Path, scratch: Path, words: Sequence[str], *, ill: Ill | None = None,
        real: bool = False, weights: WeightsFile | None = None,
    ) -> None:  # fmt: skip
        self._told = Path(tempfile.mkdtemp(dir=scratch))
        what = (folder, self._told, list(words), ill or Ill(), real, weights)
        self._process = PROCESSES.Process(target=_command, args=what)
        self._process.start()

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> Ended:
        self._process.join(WAIT_S)
        assert self._process.exitcode is not None, "still running"
        out, err = ((self._told / name) for name in ("stdout", "stderr"))
        told = (path.read_text(errors="replace") if path.exists() else "" for path in (out, err))
        return Ended(self._process.exitcode, *told)


def _command(
    folder: Path, told: Path, words: list[str], ill: Ill, real: bool, weights: WeightsFile | None
) -> None:
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which in the background is ignored
    for number, name in ((1, ill.stdout), (2, "stderr")):
        os.dup2(os.open(told / name, os.O_WRONLY | os.O_CREAT), number)
    sys.stdout, sys.stderr = (os.fdopen(os.dup(number), "w") for number in (1, 2))
    os.environ["GEOSAM_CACHE"] = str(folder / "cache")
    os.environ["no_proxy"] = "127.0.0.1"
    torch.set_num_threads(1)
    if not real:
        geosam.model.load_model = lambda *_, **__: FloodModel(SIZE)
    if weights:
        registry.PUBLISHED[weights.name] = weights
    _befall(ill)
    sys.argv = ["geosam", "--progress-lines", *words]
    geosam.__main__.main()


def _befall(ill: Ill) -> None:
    if ill.file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (ill.file_bytes, resource.RLIM_INFINITY))
    if ill.clock:
        real, ticks = time.time, iter(range(10**9))
        time.time = lambda: real() + (-1.0) ** next(ticks) * 1e9
    if ill.sends is None:
        return
    act = _sender(ill.sends)
    if ill.progress is not None:
        steps, told = iter(range(10**9)), ProgressLine.__call__

        def step(self: ProgressLine, done: int, total: int) -> None:
            told(self, done, total)
            if next(steps) == ill.progress:
                act()

        ProgressLine.__call__ = step
    for name in ("rename", "replace"):
        setattr(os, name, _watched(getattr(os, name), ill, act))


def _sender(number: int) -> Callable[[], None]:
    left = [number]

    def send() -> None:
        if left:
            os.kill(os.getpid(), left.pop())

    return send


def _watched(move: Callable[..., None], ill: Ill, act: Callable[[], None]) -> Callable[..., None]:
    def moved(source: object, target: object, **others: object) -> None:
        name = Path(str(target)).name
        if ill.before == name:
            act()
        move(source, target, **others)
        if ill.after == name:
            act()

    return moved
