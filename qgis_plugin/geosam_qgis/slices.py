"""Work that would hold up the window, done a few milliseconds at a time."""

import time
from collections import deque

from qgis.PyQt.QtCore import QObject, QTimer

SLICE_S = 0.01  # after so long it is the window's turn


class Slices(QObject):
    """Runs generators one after another, in QGIS's own thread; each `yield` may be a pause."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self._waiting = deque()
        self._timer = QTimer(self)
        self._timer.setInterval(0)
        self._timer.timeout.connect(self._go_on)

    @property
    def is_running(self):
        """Whether anything is left to do."""
        return bool(self._waiting)

    def add(self, steps, done=None, failed=None):
        """Run a generator when those before it have ended.

        Args:
            steps: the generator.
            done: called when it has ended.
            failed: called with what it raised, if it did.
        """
        self._waiting.append((steps, done, failed))
        self._timer.start()

    def then(self, done):
        """Call something when all that was added before has ended."""
        self.add((step for step in ()), done)

    def stop(self):
        """Run nothing further; a generator that has begun can tidy up."""
        self._timer.stop()
        while self._waiting:
            steps, _done, _failed = self._waiting.popleft()
            steps.close()

    def _go_on(self):
        end = time.monotonic() + SLICE_S
        while self._waiting and time.monotonic() < end:
            steps, done, failed = self._waiting[0]
            try:
                next(steps)
            except StopIteration:
                self._waiting.popleft()
                if done is not None:
                    done()
            except Exception as error:
                self._waiting.popleft()
                if failed is None:
                    raise
                failed(error)
        if not self._waiting:
            self._timer.stop()
