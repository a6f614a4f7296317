"""The window that installs the engine."""

import sys

from qgis.gui import QgsFileWidget
from qgis.PyQt.QtCore import pyqtSignal
from qgis.PyQt.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QFormLayout,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QProgressBar,
)

from .discovery import engine_folder, pythons
from .installing import Installation, qgis_proxy
from .words import tr


class InstallWindow(QDialog):
    """Asks where the engine comes from, installs it, shows how that goes.

    Signals:
        installed: the engine is there.
    """

    installed = pyqtSignal()

    def __init__(self, parent=None, folder=None):
        super().__init__(parent)
        self.setWindowTitle(tr("Install the engine of geosam"))
        self.resize(640, 480)
        self._folder = folder or engine_folder()
        self._installation = None
        self.python = QgsFileWidget()
        found = pythons(sys.executable, sys.prefix, sys.version_info)
        self.python.setFilePath(found[0] if found else "")
        self.index = QLineEdit()
        self.index.setPlaceholderText("https://pypi.org/simple")
        self.wheels = QgsFileWidget()
        self.wheels.setStorageMode(QgsFileWidget.StorageMode.GetDirectory)
        self.wheels.lineEdit().setPlaceholderText(tr("for a machine without internet"))
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.log = QPlainTextEdit()
        self.log.setReadOnly(True)
        self.state = QLabel()
        self.state.setWordWrap(True)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Cancel)
        self.install = buttons.addButton(tr("Install"), QDialogButtonBox.ButtonRole.ActionRole)
        self.install.setDefault(True)
        self.cancel = buttons.button(QDialogButtonBox.StandardButton.Cancel)
        buttons.rejected.connect(self.reject)
        self.install.clicked.connect(self._start)
        form = QFormLayout(self)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        note = QLabel(
            tr(
                "The engine goes into an environment of its own, {}. It takes a few GB, most of "
                "it PyTorch. QGIS's own Python stays as it is; QGIS's proxy is used."
            ).format(self._folder)
        )
        note.setWordWrap(True)
        form.addRow(note)
        form.addRow(tr("Python 3.11 or newer"), self.python)
        form.addRow(tr("Package index"), self.index)
        form.addRow(tr("Or a folder of wheels"), self.wheels)
        for part in (self.bar, self.log, self.state, buttons):
            form.addRow(part)

    def reject(self):
        """Cancel what goes on; close when nothing does."""
        if self._installation is None:
            super().reject()
        else:
            self._installation.cancel()

    def closeEvent(self, event):
        """Nothing goes on behind a window that is gone."""
        if self._installation is not None:
            self._installation.close()
        super().closeEvent(event)

    def _start(self):
        if not self.python.filePath():
            self.state.setText(tr("No Python was found. Choose one."))
            return
        self._installation = Installation(
            self._folder, self.python.filePath(), self.index.text().strip(),
            self.wheels.filePath(), qgis_proxy(), self,
        )  # fmt: skip
        self._installation.said.connect(self.log.appendPlainText)
        self._installation.ended.connect(self._ended)
        self.log.clear()
        self.state.clear()
        self._show_busy(True)
        self._installation.start()

    def _ended(self, worked, why):
        self._installation = None
        self._show_busy(False)
        if worked:
            self.state.setText(tr("The engine is installed."))
            self.cancel.setText(tr("Close"))
            self.installed.emit()
        else:
            self.state.setText(tr("Not installed. {}").format(why))

    def _show_busy(self, busy):
        self.bar.setMaximum(0 if busy else 1)  # a maximum of 0 moves without an end
        for part in (self.install, self.python, self.index, self.wheels):
            part.setEnabled(not busy)
