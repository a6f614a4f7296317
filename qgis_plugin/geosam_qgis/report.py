"""What someone who is to help needs to know, as a text to copy."""

import json
import os
import platform

from qgis.core import Qgis
from qgis.PyQt.QtCore import PYQT_VERSION_STR, QT_VERSION_STR
from qgis.PyQt.QtWidgets import QApplication, QDialog, QDialogButtonBox, QPlainTextEdit, QVBoxLayout

from .discovery import find_engine
from .words import tr

FOLDER = os.path.dirname(__file__)


class ReportWindow(QDialog):
    """Shows the report, which grows when the engine answers, and copies it."""

    def __init__(self, engine, parent=None):
        """`engine` is None if none was started."""
        super().__init__(parent)
        self.setWindowTitle(tr("Report on geosam"))
        self.resize(640, 480)
        self._engine = engine
        self._tested = "no answer yet"
        self._text = QPlainTextEdit()
        self._text.setReadOnly(True)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        copy = buttons.addButton(tr("Copy"), QDialogButtonBox.ButtonRole.ActionRole)
        copy.clicked.connect(lambda: QApplication.clipboard().setText(self.text()))
        buttons.rejected.connect(self.reject)
        column = QVBoxLayout(self)
        column.addWidget(self._text)
        column.addWidget(buttons)
        if engine is not None and engine.is_running:
            engine.ask(
                "self_test", {}, lambda facts: self._test(json.dumps(facts)),
                lambda kind, message: self._test(f"{kind}: {message}"),
            )  # fmt: skip
        else:
            self._tested = "not run"
        self._show()

    def text(self):
        """The report."""
        return self._text.toPlainText()

    def _test(self, answer):
        self._tested = answer
        try:
            self._show()
        except RuntimeError:  # the window is gone
            return

    def _show(self):
        self._text.setPlainText(report(self._engine, self._tested))


def report(engine, tested):
    """The report, without the user's name in paths.

    Args:
        engine: an Engine, or None.
        tested: what came of its self-test.
    """
    found = find_engine()
    place = "{} ({})".format(" ".join(found.command), found.how) if found else "none found"
    hello = json.dumps(engine.about) if engine and engine.about else "not running"
    tail = (engine.tail if engine else "").strip() or "empty"
    lines = [
        f"geosam plugin: {plugin_version()}",
        f"QGIS: {Qgis.QGIS_VERSION}",
        f"Qt: {QT_VERSION_STR}, PyQt: {PYQT_VERSION_STR}",
        f"Python: {platform.python_version()}",
        f"System: {platform.platform()}",
        f"Engine: {place}",
        f"Hello: {hello}",
        f"Self-test: {tested}",
        "End of the engine's log:",
        tail,
    ]
    return "\n".join(lines).replace(os.path.expanduser("~"), "~")


def plugin_version():
    """The version in metadata.txt."""
    with open(os.path.join(FOLDER, "metadata.txt"), encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("version="):
                return line.split("=", 1)[1].strip()
    return "?"
