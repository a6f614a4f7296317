"""Runs a command of the engine to its end, in whatever thread Processing calls from."""

import os
import re
import signal

from qgis.core import QgsProcessingException
from qgis.PyQt.QtCore import QProcess

from geosam_qgis.engine import TAIL_BYTES, clean_environment
from geosam_qgis.words import tr

POLL_MS = 100  # how long a cancel waits to be seen
ENDING_MS = 1000  # for an engine that was asked to end, before it is made to
PROGRESS = re.compile(r"progress (\d+)/(\d+)$")


def run(command, feedback):
    """Run a command; what it wrote to stdout.

    QProcess needs no event loop as long as it is waited for, and Processing's threads have none.

    Args:
        command: the program and its arguments.
        feedback: hears of progress and of what the program says; asked whether to stop.

    Raises:
        QgsProcessingException: it could not be started, or failed; the message is the program's.
    """
    process = QProcess()
    process.setProcessEnvironment(clean_environment())
    process.setReadChannel(QProcess.ProcessChannel.StandardError)
    process.start(command[0], command[1:])
    if not process.waitForStarted():
        raise QgsProcessingException(tr("{} could not be started.").format(command[0]))
    process.closeWriteChannel()
    log, rest = b"", b""
    while process.state() != QProcess.ProcessState.NotRunning:
        process.waitForReadyRead(POLL_MS)
        *lines, rest = (rest + bytes(process.readAllStandardError())).split(b"\n")
        log = (log + _tell(lines, feedback))[-TAIL_BYTES:]
        if feedback.isCanceled():
            _stop(process)
            return ""
    log += _tell((rest + bytes(process.readAllStandardError())).split(b"\n"), feedback)
    crashed = process.exitStatus() != QProcess.ExitStatus.NormalExit
    if crashed or process.exitCode() != 0:
        raise QgsProcessingException(_reason(log.decode("utf-8", "replace")))
    return bytes(process.readAllStandardOutput()).decode("utf-8", "replace")


def _tell(lines, feedback):
    """Pass on what lines say; those that are no progress."""
    log = b""
    for line in lines:
        text = line.decode("utf-8", "replace").strip()
        progress = PROGRESS.match(text)
        if progress:
            done, total = map(int, progress.groups())
            feedback.setProgress(100 * done / max(1, total))
        elif text:
            feedback.pushConsoleInfo(text)
            log += line + b"\n"
    return log


def _stop(process):
    """Interrupt a process, so that it takes its drafts along; kill it if it goes on."""
    if os.name != "nt":
        os.kill(process.processId(), signal.SIGINT)
        process.waitForFinished(ENDING_MS)
    if process.state() != QProcess.ProcessState.NotRunning:
        process.kill()
        process.waitForFinished(ENDING_MS)


def _reason(log):
    """Why the engine failed: its line about it, else the end of its log."""
    _before, found, message = log.rpartition("Error: ")
    if "No such command" in message:
        return tr("This engine is too old for it: {} Install a newer one.").format(message.strip())
    if found and "Traceback" not in log:
        return message.strip()
    return tr("The engine failed.\n{}").format(log.strip())
