"""The one file that talks to the engine: a process of its own, lines of JSON in and out.

The protocol is docs/protocol.md of geosam. Nothing here blocks the window: answers arrive as
callbacks in QGIS's own thread.
"""

import json
import math
import time
from collections import deque

from qgis.PyQt.QtCore import QObject, QProcess, QProcessEnvironment, QTimer, pyqtSignal

from .words import tr

PROTOCOL = 1
TAIL_BYTES = 8192  # of the engine's log that are kept for reports
CLOSING_MS = 2000
READING_S = 0.01  # at a stretch
TIMEOUTS_S = {"hello": 60, "preview": 30, "vectorize": 30, "tiles": 60, "models": 30, "close": 30}

# What QGIS sets for its own Python and libraries would lead another Python astray.
FOREIGN = (
    "PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "VIRTUAL_ENV", "GDAL_DATA", "GDAL_DRIVER_PATH",
    "PROJ_LIB", "PROJ_DATA", "QT_PLUGIN_PATH",
)  # fmt: skip


class Call:
    """A request that waits for its answer."""

    def __init__(self, op, done, failed, progress, found):
        self.op = op
        self.done = done
        self.failed = failed
        self.progress = progress
        self.found = found
        self.began_s = time.monotonic()


class Engine(QObject):
    """A geosam process: started, asked, cancelled, noticed when it is gone.

    Signals:
        ready: it answered hello; a dict with its version.
        gone: it ended or could not be started; why, and on further lines the end of its log.
        said: a line of its log.
    """

    ready = pyqtSignal(dict)
    gone = pyqtSignal(str)
    said = pyqtSignal(str)

    def __init__(self, command, parent=None):
        """`command` is a list: the program and the words before `serve --stdio`."""
        super().__init__(parent)
        self.command = list(command)
        self.about = None  # what hello answered, while it runs
        self._calls = {}
        self._number = 0
        self._lines = deque()  # that came and were not heard yet
        self._rest = b""
        self._tail = b""
        self._closing = False
        self._process = None
        self._watch = QTimer(self)
        self._watch.setInterval(1000)
        self._watch.timeout.connect(self._check_time)

    @property
    def is_running(self):
        """Whether the process is there, ready or starting."""
        return self._process is not None

    @property
    def tail(self):
        """The end of the engine's log."""
        return self._tail.decode("utf-8", "replace")

    def start(self):
        """Start the process; `ready` or `gone` follows."""
        if self.is_running:
            return
        self._rest, self._tail, self._closing, self.about = b"", b"", False, None
        self._lines.clear()
        process = QProcess(self)
        process.setProcessEnvironment(clean_environment())
        process.readyReadStandardOutput.connect(self._read)
        process.readyReadStandardError.connect(self._log)
        process.finished.connect(lambda code, status: self._ended(process, code))
        process.errorOccurred.connect(lambda error: self._failed(process, error))
        self._process = process
        process.start(self.command[0], [*self.command[1:], "serve", "--stdio"])
        self._watch.start()
        self.ask("hello", {"protocol": PROTOCOL}, self._greeted, self._refused)

    def ask(self, op, given, done=None, failed=None, progress=None, found=None):
        """Send a request; its number, for `cancel`.

        Args:
            op: the operation.
            given: its parameters.
            done: called with the answer.
            failed: called with the kind of error and the message.
            progress: called with done, total and the seconds left, or None.
            found: called with polygons that come before the answer.
        """
        self._number += 1
        number = self._number
        self._calls[number] = Call(op, done, failed, progress, found)
        if self._process is None:
            QTimer.singleShot(
                0, lambda: self._fail(number, "EngineGone", tr("The engine is not running."))
            )
            return number
        line = json.dumps({"id": number, "op": op, **given}).encode("utf-8") + b"\n"
        self._process.write(line)
        return number

    def cancel(self, number):
        """Ask for a request to be dropped; its `failed` hears of it."""
        if number in self._calls:
            self.ask("cancel", {"request": number})

    def close(self):
        """End the process in order; kill it if it does not end by itself."""
        process = self._process
        if process is None:
            return
        self._closing = True
        process.closeWriteChannel()
        if not process.waitForFinished(CLOSING_MS):
            process.kill()
            process.waitForFinished(CLOSING_MS)

    def kill(self):
        """End the process at once; who waits for an answer hears that it is gone."""
        self._closing = True
        if self._process is not None:
            self._process.kill()
            self._process.waitForFinished(CLOSING_MS)

    def _greeted(self, answer):
        self.about = answer
        self.ready.emit(answer)

    def _refused(self, kind, message):
        if self._process is not None and kind != "EngineGone":
            self._tail += message.encode("utf-8")
            self._process.kill()

    def _read(self):
        if self._process is not None:
            data = self._rest + bytes(self._process.readAllStandardOutput())
            *lines, self._rest = data.split(b"\n")
            self._lines.extend(lines)
        self._hear_all(time.monotonic() + READING_S)

    def _hear_all(self, end_s=math.inf):
        """Hear the lines that came; after a while the window has its turn, and the rest comes."""
        try:
            while self._lines and time.monotonic() < end_s:
                self._hear(self._lines.popleft())
        finally:  # also after a callback's fault, which is reported and holds up no other answer
            if self._lines:
                QTimer.singleShot(0, self._read)

    def _hear(self, line):
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if isinstance(message, dict):
            self._take(message)
        else:
            self.said.emit("not understood: " + line[:200].decode("utf-8", "replace"))

    def _take(self, message):
        number = message.get("id")
        call = self._calls.get(number)
        if call is None:
            return
        if "event" in message:
            call.began_s = time.monotonic()
            if call.progress and message["event"] == "progress":
                call.progress(message["done"], message["total"], message.get("eta_s"))
            elif call.found and message["event"] == "polygons":
                call.found(message["polygons"])
        elif "error" in message:
            error = message["error"]
            self._fail(number, error.get("type", "Error"), error.get("message", ""))
        else:
            del self._calls[number]
            if call.done:
                call.done(message.get("ok", {}))

    def _fail(self, number, kind, message):
        call = self._calls.pop(number, None)
        if call and call.failed:
            call.failed(kind, message)

    def _log(self):
        data = bytes(self._process.readAllStandardError())
        self._tail = (self._tail + data)[-TAIL_BYTES:]
        for line in data.decode("utf-8", "replace").splitlines():
            self.said.emit(line)

    def _failed(self, process, error):
        if error == QProcess.ProcessError.FailedToStart:
            self._ended(process, None)

    def _ended(self, process, code):
        if process is not self._process:
            return
        self._read()
        self._hear_all()
        self._log()
        self._process, self.about = None, None
        self._watch.stop()
        process.deleteLater()
        for number in list(self._calls):
            self._fail(number, "EngineGone", tr("The engine ended."))
        if not self._closing:
            if code is None:
                why = tr("{} could not be started").format(self.command[0])
            else:
                why = tr("code {}").format(code)
            self.gone.emit(f"{why}\n{self.tail}".strip())

    def _check_time(self):
        now = time.monotonic()
        for number, call in list(self._calls.items()):
            limit_s = TIMEOUTS_S.get(call.op)
            if limit_s and now - call.began_s > limit_s:
                self._fail(
                    number, "Timeout", tr("No answer to {} in {} s.").format(call.op, limit_s)
                )


def clean_environment():
    """The user's environment without what QGIS added for itself."""
    environment = QProcessEnvironment.systemEnvironment()
    for name in FOREIGN:
        environment.remove(name)
    return environment
