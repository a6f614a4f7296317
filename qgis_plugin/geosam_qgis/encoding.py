"""Preparing an image: what is to be encoded, how far it is, and where it is done."""

import time

from qgis.PyQt.QtCore import QObject, pyqtSignal

from .image import QUICK_S
from .shaping import as_geometry

REFRESH_S = 1.0  # between two looks at what is ready, while encoding


class Encoding(QObject):
    """Encodes an open image; what is done stays, so the same wish again goes on where it stopped.

    Signals:
        progressed: tiles done, tiles in all, and the seconds left or None.
        ended: what went wrong, or an empty text.
        counted: tiles ready for clicks and tiles there are.
    """

    progressed = pyqtSignal(int, int, object)
    ended = pyqtSignal(str)
    counted = pyqtSignal(int, int)

    def __init__(self, image, outlines):
        super().__init__(image)
        self._image = image
        self._outlines = outlines
        self._number = None
        self._looking, self._looked_s = False, 0.0
        self.tile_s = self.tile_mb = 0.0  # what a tile takes; 0: not known yet
        image.opened.connect(self._begin)
        image.shut.connect(self._shut)

    @property
    def is_running(self):
        """Whether tiles are being encoded."""
        return self._number is not None

    def start(self, view, crs, area):
        """Encode an area, or the whole raster, from a point outward.

        Args:
            view: a QgsPointXY.
            crs: of view and area, as the engine takes it.
            area: what `area_given` gives.
        """
        if self.is_running:
            return
        given = {"view": [view.x(), view.y()], "crs": crs, **area}
        self._number = self._image.ask("encode", given, self._done, self._failed, self._goes_on)
        self.progressed.emit(0, 0, None)

    def cancel(self):
        """Stop after the tile at work."""
        if self.is_running:
            self._image.engine.cancel(self._number)

    def look(self):
        """Find out what is ready, and show it."""
        if self._image.is_open and not self._looking:
            self._looking, self._looked_s = True, time.monotonic()
            scene = self._image.scene
            self._image.ask(
                "ready",
                {},
                lambda answer: self._seen(answer, scene),
                lambda *_: self._seen(None, scene),
            )

    def _begin(self, _answer):
        self._looking = False
        self.look()
        scene, self.tile_s = self._image.scene, 0.0
        self._image.ask("plan", {}, lambda plan: self._plan(plan, scene))

    def _plan(self, plan, scene):
        if scene == self._image.scene:
            self._image.quick = plan["tile_s"] <= QUICK_S
            self.tile_s = plan["tile_s"]
            self.tile_mb = plan["megabytes"] / max(plan["missing"], 1)
            self.look()

    def _shut(self, _why):
        self._looking = False
        self._outlines.ready(None)
        if self.is_running:
            self._number = None
            self.ended.emit("")

    def _goes_on(self, done, total, left_s):
        if self.is_running:
            self.progressed.emit(done, total, left_s)
            if time.monotonic() - self._looked_s > REFRESH_S:
                self.look()

    def _done(self, _answer):
        self._end("")

    def _failed(self, kind, message):
        self._end("" if kind in ("Cancelled", "EngineGone") else message)

    def _end(self, why):
        if self.is_running:
            self._number = None
            self.ended.emit(why)
            self.look()

    def _seen(self, answer, scene):
        self._looking = False
        if answer is None or scene != self._image.scene:
            return
        self._outlines.ready(as_geometry(answer["area"]), self._image.crs)
        grids = [grid for grid in answer["grids"] if grid["scale"] >= 0.5] or answer["grids"]
        self.counted.emit(sum(g["done"] for g in grids), sum(g["tiles"] for g in grids))
