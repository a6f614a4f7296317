"""Requests on their way: two lanes that work side by side, cancelling, and newest wins."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from geosam.serve.wire import Message, Wire

PROGRESS_EVERY_S = 0.1
POLYGONS_AN_EVENT = 50  # so that no line keeps a client busy for long


class Cancelled(Exception):
    """A request that nobody waits for any more."""


@dataclass(slots=True, eq=False)
class Task:
    """A request that is waited for.

    Attributes:
        id: by which its answers are told from others'.
        op: what is asked for.
        given: the parameters.
        wire: where the answers go.
    """

    id: int | str
    op: str
    given: Message
    wire: Wire
    _ended: str | None = None
    _began: float = field(default_factory=time.monotonic)
    _told: float = 0.0

    def end(self, why: str) -> None:
        """Nobody waits for it any more; it stops at its next step."""
        self._ended = why

    def check(self) -> None:
        """Stop here if the task was ended.

        Raises:
            Cancelled: it was.
        """
        if self._ended:
            raise Cancelled(self._ended)

    def checked(self, _done: int, _total: int) -> None:
        """A `Progress` hook that tells nothing; see `check`."""
        self.check()

    def progress(self, done: int, total: int) -> None:
        """Tell how far it is, at most ten times a second; a `Progress` hook.

        Raises:
            Cancelled: the task was ended.
        """
        self.check()
        now = time.monotonic()
        if done < total and now - self._told < PROGRESS_EVERY_S:
            return
        self._told = now
        left = (now - self._began) / done * (total - done) if done else None
        facts = {"done": done, "total": total, "eta_s": None if left is None else round(left, 1)}
        self.wire.send({"id": self.id, "event": "progress", **facts})

    def found(self, polygons: Sequence[Message]) -> None:
        """Tell of polygons before the answer, a few at a time.

        Raises:
            Cancelled: the task was ended.
        """
        self.check()
        for start in range(0, len(polygons), POLYGONS_AN_EVENT):
            part = polygons[start : start + POLYGONS_AN_EVENT]
            self.wire.send({"id": self.id, "event": "polygons", "polygons": part})


class Lane:
    """A thread that does one task after another.

    Attributes:
        newest: operations of which only the newest request that waits is done.
    """

    def __init__(
        self, name: str, do: Callable[[Task], None], newest: frozenset[str] = frozenset()
    ) -> None:
        self.newest = newest
        self._do = do
        self._waiting: deque[Task] = deque()
        self._running: Task | None = None
        self._closed = False
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, task: Task) -> None:
        """Queue a task."""
        with self._news:
            if task.op in self.newest:
                for other in self._waiting:
                    if other.op == task.op:
                        other.end("superseded")
            self._waiting.append(task)
            self._news.notify()

    def end(self, request: object) -> bool:
        """Cancel a task by its id; whether it was still waiting or running."""
        with self._news:
            for task in (*self._waiting, *filter(None, [self._running])):
                if task.id == request:
                    task.end("cancelled")
                    return True
        return False

    def close(self, timeout_s: float) -> bool:
        """Cancel everything; whether the thread came to rest in time."""
        with self._news:
            self._closed = True
            for task in (*self._waiting, *filter(None, [self._running])):
                task.end("cancelled")
            self._news.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while task := self._next():
            self._do(task)

    def _next(self) -> Task | None:
        with self._news:
            self._running = None
            while not self._waiting:
                if self._closed:
                    return None
                self._news.wait()
            self._running = self._waiting.popleft()
            return self._running
