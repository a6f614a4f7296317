"""Installs the engine into a virtual environment of its own; QGIS's Python stays as it is."""

import os
import shutil
import signal
from urllib.parse import quote

from qgis.core import QgsNetworkAccessManager
from qgis.PyQt.QtCore import QObject, QProcess, pyqtSignal
from qgis.PyQt.QtNetwork import QNetworkProxy

from .discovery import COMMAND, PYTHON, program
from .engine import clean_environment
from .words import tr

PACKAGE = "geosam-toolkit"
ENDING_MS = 5000


class Installation(QObject):
    """One installation: begun, watched, cancelled.

    A folder that was not there before is removed if the installation fails or is cancelled.

    Signals:
        said: a line of what goes on.
        ended: whether it worked; and why not.
    """

    said = pyqtSignal(str)
    ended = pyqtSignal(bool, str)

    def __init__(self, folder, python, index="", wheels="", proxy="", parent=None):
        """Prepare an installation.

        Args:
            folder: the virtual environment to make or bring up to date.
            python: the path of a Python that makes it.
            index: the address of a package index; PyPI if empty.
            wheels: a folder of wheels, which are used instead of any index.
            proxy: the address of a proxy; the environment's if empty.
            parent: the QObject that it goes with.
        """
        super().__init__(parent)
        self.folder = folder
        self._is_new = not os.path.exists(folder)
        self._environment = clean_environment()
        named = (("PIP_INDEX_URL", index), ("HTTPS_PROXY", proxy), ("HTTP_PROXY", proxy))
        for name, value in named:
            if value:  # not as arguments, which others on this machine can read
                self._environment.insert(name, value)
        self._steps = _steps(folder, python, wheels)
        self._process = None
        self._rest = b""
        self._last = ""
        self._cancelled = False

    def start(self):
        """Begin; `ended` follows."""
        if self._is_new:
            os.makedirs(os.path.dirname(self.folder), exist_ok=True)
        self._next()

    def cancel(self):
        """Stop at once; `ended` follows."""
        self._cancelled = True
        if self._process is not None:
            _kill(self._process)

    def close(self):
        """Stop and wait until it is over."""
        process = self._process
        if process is not None:
            self.cancel()
            process.waitForFinished(ENDING_MS)

    def _next(self):
        what, command = self._steps.pop(0)
        self._rest = b""
        process = QProcess(self)
        process.setProcessEnvironment(self._environment)
        process.setProcessChannelMode(QProcess.ProcessChannelMode.MergedChannels)
        process.readyRead.connect(self._read)
        process.finished.connect(lambda code, status: self._finished(code, status))
        process.errorOccurred.connect(self._failed)
        self._process = process
        process.start(command[0], command[1:])
        self.said.emit(what)

    def _read(self):
        self._rest += bytes(self._process.readAll())
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            self._say(line)

    def _say(self, line):
        text = line.decode("utf-8", "replace").strip()
        if text:
            self._last = text
            self.said.emit(text)

    def _failed(self, error):
        if error == QProcess.ProcessError.FailedToStart:
            self._last = tr("{} could not be started").format(self._process.program())
            self._finished(1, QProcess.ExitStatus.NormalExit)

    def _finished(self, code, status):
        self._read()
        self._say(self._rest)
        self._process.deleteLater()
        self._process = None
        if self._cancelled:
            self._give_up(tr("Cancelled."))
        elif code != 0 or status != QProcess.ExitStatus.NormalExit:
            self._give_up(self._last)
        elif self._steps:
            self._next()
        else:
            self.ended.emit(True, "")

    def _give_up(self, why):
        if self._is_new:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.ended.emit(False, why)


def _kill(process):
    """Kill a process with its children, if it made a group of its own."""
    if hasattr(os, "killpg"):
        try:
            os.killpg(process.processId(), signal.SIGKILL)
        except ProcessLookupError:  # no group
            process.kill()
    else:
        process.kill()


def qgis_proxy():
    """The address of the proxy in QGIS's settings, for other programs; empty if none."""
    proxy = QgsNetworkAccessManager.instance().fallbackProxy()
    kinds = (QNetworkProxy.ProxyType.HttpProxy, QNetworkProxy.ProxyType.HttpCachingProxy)
    if proxy.type() not in kinds or not proxy.hostName():
        return ""
    return proxy_address(proxy.hostName(), proxy.port(), proxy.user(), proxy.password())


def proxy_address(host, port, user="", password=""):  # nosec B107
    """The address of an HTTP proxy."""
    who = ""
    if user:
        who = "{}:{}@".format(quote(user, safe=""), quote(password, safe=""))
    return "http://{}{}{}".format(who, host, f":{port}" if port else "")


def _steps(folder, python, wheels):
    """What is done, each in words and as a command."""
    oldest = "{}.{}".format(*PYTHON)
    check = (
        f"import sys, venv, ensurepip; ok = sys.version_info >= {PYTHON}; "
        f"ok or print('Python', sys.version.split()[0], 'is too old: {oldest} is needed'); "
        "sys.exit(not ok)"
    )
    make = (  # a group of its own, for it has pip installed by a child
        "import os, sys, venv; hasattr(os, 'setsid') and os.setsid(); venv.main(sys.argv[1:])"
    )
    pip = [program(folder, "python"), "-I", "-m", "pip", "install", "--upgrade"]
    pip += ["--disable-pip-version-check", "--no-input", "--only-binary", ":all:"]
    if wheels:
        pip += ["--no-index", "--find-links", wheels]
    return [
        (tr("Looking at Python..."), [python, "-I", "-c", check]),
        (tr("Making a virtual environment..."), [python, "-I", "-c", make, folder]),
        (tr("Installing {}...").format(PACKAGE), [*pip, PACKAGE]),
        (tr("Trying the engine..."), [program(folder, COMMAND), "--version"]),
    ]
