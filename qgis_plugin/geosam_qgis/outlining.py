"""The object that is being outlined: its prompts, and what the engine makes of them."""

from qgis.core import (
    QgsCoordinateTransform,
    QgsGeometry,
    QgsPointXY,
    QgsProject,
    QgsRectangle,
)
from qgis.PyQt.QtCore import QObject, QTimer, pyqtSignal

from .draft import Draft
from .image import crs_name

SETTLING_MS = 60  # a control that is being turned is quiet for so long before outlines are redrawn


class Outlining(QObject):
    """Prompts of one object and the outlines they give, best first.

    Prompts stay when the engine ends, and are asked about again when the image is open again.

    Signals:
        prompted: the prompts changed.
        answered: the outlines, or which of them is chosen, changed.
        failed: the engine could not answer; why.
    """

    prompted = pyqtSignal()
    answered = pyqtSignal()
    failed = pyqtSignal(str)

    def __init__(self, image, outlines, canvas, shape):
        """`shape()` says how outlines are to be drawn."""
        super().__init__(image)
        self._image = image
        self._outlines = outlines
        self._canvas = canvas
        self._shape = shape
        self.draft = Draft()
        self.found = []  # polygons with QgsGeometry, in the raster's CRS
        self.chosen = 0
        self._asked = None
        self._number = None
        self._settling = QTimer(self)
        self._settling.setSingleShot(True)
        self._settling.setInterval(SETTLING_MS)
        self._settling.timeout.connect(self._vectorize)
        image.opened.connect(lambda _answer: self._ask())
        image.shut.connect(lambda _why: self._forget())

    @property
    def is_waiting(self):
        """Whether an answer is to come."""
        return self._asked is not None

    @property
    def best(self):
        """The chosen polygon, or None if there is no outline."""
        polygon = self.found[self.chosen] if self.found else None
        return polygon if polygon and polygon["geometry"] is not None else None

    def add_point(self, x, y, label):
        """Add a click in the map's coordinates."""
        self.draft = self.draft_with(x, y, label)
        self._changed()

    def add_box(self, rectangle):
        """Add a box in the map's coordinates."""
        self._begin()
        moved = self._from_map().transformBoundingBox(rectangle)
        self.draft.add_box(moved.xMinimum(), moved.yMinimum(), moved.xMaximum(), moved.yMaximum())
        self._changed()

    def take_back(self):
        """Take back the last prompt."""
        self.draft.take_back()
        self._changed()

    def clear(self):
        """Forget the object."""
        self.draft.clear()
        self._changed()

    def choose(self, number):
        """Choose another reading of a lone click."""
        if number < len(self.found):
            self.chosen = number
            self._show()

    def redraw(self):
        """The wishes for the shape changed: draw the masks anew, without decoding."""
        self._settling.start()

    def draft_with(self, x, y, label=1):
        """What the prompts would be with one more click in the map's coordinates."""
        self._begin()
        point = self._from_map().transform(QgsPointXY(x, y))
        return self.draft.with_point(point.x(), point.y(), label)

    def _begin(self):
        """An empty draft takes the CRS of the map; one that is begun keeps its own."""
        if not len(self.draft):
            self.draft.crs = self._canvas.mapSettings().destinationCrs()

    def _from_map(self):
        now = self._canvas.mapSettings().destinationCrs()
        return QgsCoordinateTransform(now, self.draft.crs, QgsProject.instance())

    def show_prompts(self):
        """Draw the prompts on the map."""
        box = self.draft.box
        self._outlines.points(self.draft.points, self.draft.crs)
        self._outlines.box(None if box is None else QgsRectangle(*box), self.draft.crs)

    def _changed(self):
        self.show_prompts()
        self.prompted.emit()
        self._ask()

    def _forget(self):
        """Drop the outlines, whose masks are gone, and keep the prompts."""
        self._asked = None
        self._take([])

    def _ask(self):
        if self._asked is not None:
            self._image.engine.cancel(self._number)
            self._asked = None
        request = self.draft.request()
        if request is None or not self._image.is_open:
            self._take([])
            return
        asked, shape = object(), self._shape()
        given = {
            "prompts": [request], "crs": crs_name(self.draft.crs),
            "multimask": self.draft.is_lone_click, **shape.wishes(),
        }  # fmt: skip
        self._asked = asked
        self._number = self._image.ask(
            "segment", given,
            lambda answer: self._answer(asked, answer["polygons"], shape),
            lambda kind, message: self._refuse(asked, kind, message),
        )  # fmt: skip
        self.answered.emit()

    def _answer(self, asked, polygons, shape):
        if asked is self._asked:
            self._asked = None
            self._take([shape.drawn(polygon, self._image.pixel_m2) for polygon in polygons])

    def _refuse(self, asked, kind, message):
        if asked is self._asked:
            self._asked = None
            self._take([])
            if kind not in ("Cancelled", "EngineGone"):
                self.failed.emit(message)

    def _take(self, found, chosen=None):
        """Take outlines; the first that is not empty is chosen, unless another was."""
        filled = [i for i, polygon in enumerate(found) if polygon["geometry"] is not None]
        self.found = found
        self.chosen = chosen if chosen is not None else next(iter(filled), 0)
        self._show()

    def _show(self):
        best = self.best
        self._outlines.draft(QgsGeometry(best["geometry"]) if best else None, self._image.crs)
        self.answered.emit()

    def _vectorize(self):
        masks = [polygon["mask"] for polygon in self.found]
        if not masks or self.is_waiting or not self._image.is_open:
            return
        before, shape = self.found, self._shape()
        self._image.engine.ask(
            "vectorize", {"masks": masks, **shape.wishes()},
            lambda answer: self._redrawn(before, answer["polygons"], shape),
            lambda _kind, _message: self._ask(),  # the masks are no longer kept
        )  # fmt: skip

    def _redrawn(self, before, polygons, shape):
        if self.found is before:  # nothing newer has come in between
            drawn = [shape.drawn(polygon, self._image.pixel_m2) for polygon in polygons]
            self._take(drawn, self.chosen)
