"""The raster that is open in the engine: everything about it is asked here."""

import os

from qgis.core import QgsCoordinateReferenceSystem
from qgis.PyQt import sip
from qgis.PyQt.QtCore import QObject, pyqtSignal

from .rasters import NoFile, NoSource, bands_of, source_of
from .words import tr

QUICK_S = 0.15  # a tile that takes no longer may be encoded for hovering


class Image(QObject):
    """A raster with its model, open in an engine or not.

    Signals:
        opened: it is open; the engine's answer.
        shut: it is open no more, or never was; why, or an empty text.
        fileless: the layer has no file, but can be exported.
    """

    opened = pyqtSignal(dict)
    shut = pyqtSignal(str)
    fileless = pyqtSignal()

    def __init__(self, parent=None):
        super().__init__(parent)
        self.engine = None
        self.scene = None  # the engine's handle
        self.crs = QgsCoordinateReferenceSystem()
        self.model = None  # the model's name with the fingerprint of its weights
        self.pixel_m2 = 0.0
        self.quick = False  # whether tiles are encoded fast enough for hovering
        self.request = {}  # what it was opened with
        self.layer_id = None  # of the layer that was chosen
        self._followed = None, None  # the layer and the model that were chosen
        self._wanted = None

    @property
    def is_open(self):
        """Whether it can be asked about."""
        return self.scene is not None

    def open(self, layer, model):
        """Open a raster layer with a model, in place of the last; `opened` or `shut` follows."""
        self.close()
        self._follow(layer, model)
        if layer is None or self.engine is None or not self.engine.is_running:
            self.shut.emit("")
            return
        try:
            request = {"raster": source_of(layer), "model": model, "bands": bands_of(layer)}
        except NoSource as why:
            self.shut.emit(str(why))
            if isinstance(why, NoFile):
                self.fileless.emit()
            return
        wanted = self._wanted = object()
        crs, name = layer.crs(), layer.name()
        self.request = request
        self.engine.ask(
            "open", request,
            lambda answer: self._take(answer, wanted, crs, name),
            lambda _kind, message: self._give_up(message, wanted),
        )  # fmt: skip

    def close(self):
        """Forget the raster; its features stay on disk."""
        self._wanted = None
        if self.scene is not None and self.engine is not None and self.engine.is_running:
            self.engine.ask("close", {"scene": self.scene})
        self.scene = None

    def lose(self):
        """The engine is gone, and the raster with it."""
        self._wanted = self.scene = None
        self.shut.emit("")

    @property
    def facts(self):
        """What a saved outline says of where it comes from."""
        return {"model": self.model, "source": os.path.basename(self.request["raster"])}

    def ask(self, op, given, done=None, failed=None, progress=None):
        """Ask the engine about this raster; see `Engine.ask`. It must be open."""
        return self.engine.ask(op, {"scene": self.scene, **given}, done, failed, progress)

    def _follow(self, layer, model):
        """Open the layer again when QGIS shows other bands of it."""
        before, self._followed = self._followed, (layer, model)
        self.layer_id = None if layer is None else layer.id()
        if before[0] is not None and not sip.isdeleted(before[0]):
            before[0].rendererChanged.disconnect(self._restyled)
        if layer is not None:
            layer.rendererChanged.connect(self._restyled)

    def _restyled(self):
        layer, model = self._followed
        try:
            same = bands_of(layer) == self.request.get("bands")
        except NoSource:
            same = False
        if not same:
            self.open(layer, model)

    def _take(self, answer, wanted, crs, name):
        if wanted is not self._wanted:
            self.engine.ask("close", {"scene": answer["scene"]})
            return
        found = QgsCoordinateReferenceSystem.fromWkt(answer["crs"])
        self.scene = answer["scene"]
        if not is_same(found, crs):
            self.close()
            self.shut.emit(
                tr(
                    "QGIS shows {} in {}, its file says {}. Set the layer's CRS to the file's, or "
                    "correct the file with Raster > Projections > Assign Projection."
                ).format(name, described(crs), described(found))
            )
            return
        self.crs, self.model = crs, answer["model"]
        width, height = answer["pixel_m"]
        self.pixel_m2 = width * height
        self.opened.emit(answer)

    def _give_up(self, message, wanted):
        if wanted is self._wanted:
            self.shut.emit(message)


def is_same(one, other):
    """Whether two CRSs put coordinates in the same place, however they are written."""
    return one == other or (one.toProj() != "" and one.toProj() == other.toProj())


def described(crs):
    """A CRS in a word or two."""
    return crs.authid() or crs.description() or tr("an unknown CRS")


def crs_name(crs):
    """A CRS as the engine takes it."""
    return crs.authid() or crs.toWkt()
