"""The choice of the model; one that is not here yet is fetched when the user agrees."""

from qgis.PyQt.QtCore import QObject, pyqtSignal
from qgis.PyQt.QtWidgets import QMessageBox

from .words import tr


class Models(QObject):
    """The models that an engine knows, in a combo box.

    Signals:
        chosen: another model is to be used; its name.
        failed: a model could not be fetched; why.
        fetching: bytes done, bytes in all, seconds left or None.
        fetched: fetching is over.
    """

    chosen = pyqtSignal(str)
    failed = pyqtSignal(str)
    fetching = pyqtSignal(int, int, object)
    fetched = pyqtSignal()

    def __init__(self, box, parent=None):
        super().__init__(parent)
        self._box = box
        self._engine = None
        self._ready = {"nano": True}
        self._sizes = {}
        self.name = "nano"
        self._number = None
        box.activated.connect(self._activated)

    def ask(self, engine):
        """Take the models that an engine knows."""
        self._engine, self._number = engine, None
        engine.ask("models", {}, self._take)

    def cancel(self):
        """Fetch no further; what came is kept for the next time."""
        if self._number is not None:
            self._engine.cancel(self._number)

    def _take(self, answer):
        self._ready = {model["name"]: model["ready"] for model in answer["models"]}
        self._sizes = {model["name"]: model["size_mb"] for model in answer["models"]}
        self._box.clear()
        for name, ready in self._ready.items():
            words = (
                name if ready else tr("{} (to fetch, {:.0f} MB)").format(name, self._sizes[name])
            )
            self._box.addItem(words, name)
        self._show()

    def _show(self):
        self._box.setCurrentIndex(self._box.findData(self.name))

    def _activated(self, _index):
        name = self._box.currentData()
        if self._ready.get(name):
            self._use(name)
            return
        self._show()
        if self._number is None and self._agrees(name):
            self._number = self._engine.ask(
                "pull", {"name": name}, lambda _answer: self._came(name), self._failed,
                self.fetching.emit,
            )  # fmt: skip
            self.fetching.emit(0, 0, None)

    def _agrees(self, name):
        buttons = QMessageBox.StandardButton
        question = tr("Fetch the model {} ({:.0f} MB) from the internet?").format(
            name, self._sizes[name]
        )
        return QMessageBox.question(self._box, "geosam", question) == buttons.Yes

    def _use(self, name):
        if name != self.name:
            self.name = name
            self._show()
            self.chosen.emit(name)

    def _came(self, name):
        self._number = None
        self.fetched.emit()
        self._ready[name] = True
        self._box.setItemText(self._box.findData(name), name)
        self._use(name)

    def _failed(self, kind, message):
        self._number = None
        self.fetched.emit()
        if kind not in ("Cancelled", "EngineGone"):
            self.failed.emit(message)
