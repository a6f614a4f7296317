"""What is drawn over the map: the outline under the mouse, the object's outline, its prompts."""

from qgis.core import QgsCoordinateTransform, QgsGeometry, QgsPointXY, QgsProject, QgsWkbTypes
from qgis.gui import QgsRubberBand, QgsVertexMarker
from qgis.PyQt.QtCore import QObject, Qt
from qgis.PyQt.QtGui import QColor

POLYGON = QgsWkbTypes.GeometryType.PolygonGeometry
HOVER, CASING = QColor("#ffe600"), QColor(20, 20, 20, 200)  # seen over leaves, roofs and snow
BOX, READY = QColor("#00b7ff"), QColor(0, 150, 255, 220)
ON, BESIDE = QColor("#1a9641"), QColor("#d7191c")
WHITE = QColor("#ffffff")
NOTHING = QColor(0, 0, 0, 0)


class Outlines(QObject):
    """Rubber bands and markers of one canvas; they keep their place when the map's CRS changes."""

    def __init__(self, canvas):
        super().__init__(canvas)
        self._canvas = canvas
        self._ready = self._band(READY, 2, fill=QColor(0, 150, 255, 22))
        self._draft = self._band(QColor("#ff7f0e"), 3, casing=WHITE)
        self._box = self._band(BOX, 2, fill=NOTHING, casing=CASING)
        self._hover = self._band(HOVER, 2, fill=NOTHING, casing=CASING)
        self._hover.setLineStyle(Qt.PenStyle.DashLine)
        self._shown = {}  # band: geometry and CRS
        self._marks, self._points = [], ((), None)
        canvas.destinationCrsChanged.connect(self._redraw)

    def _band(self, colour, width, fill=None, casing=None):
        band = QgsRubberBand(self._canvas, POLYGON)
        band.setStrokeColor(colour)
        band.setFillColor(faint(colour) if fill is None else fill)
        band.setWidth(width)
        if casing is not None:
            band.setSecondaryStrokeColor(casing)
        return band

    def set_colour(self, colour):
        """The class's colour, for the object's outline."""
        self._draft.setStrokeColor(colour)
        self._draft.setFillColor(faint(colour))

    def hover(self, geometry, crs=None):
        """Show the outline under the mouse, a geometry in a CRS; None hides it."""
        self._show(self._hover, geometry, crs)

    def draft(self, geometry, crs=None):
        """Show the object's outline; None hides it."""
        self._show(self._draft, geometry, crs)

    def ready(self, geometry, crs=None):
        """Show where a click is answered at once; None hides it."""
        self._show(self._ready, geometry, crs)

    def box(self, rectangle, crs=None):
        """Show the object's box; None hides it."""
        geometry = None if rectangle is None else QgsGeometry.fromRect(rectangle)
        self._show(self._box, geometry, crs)

    def points(self, points, crs):
        """Mark the object's clicks: (x, y, label) in a CRS."""
        self._points = (list(points), crs)
        for mark in self._marks:
            self._canvas.scene().removeItem(mark)
        self._marks = []
        for x, y, label in points:
            place = self._on_map(QgsPointXY(x, y), crs)
            for colour, width, size in ((WHITE, 6, 15), (ON if label else BESIDE, 3, 12)):
                self._marks.append(self._mark(place, label, colour, width, size))

    def _mark(self, place, label, colour, width, size):
        kinds = QgsVertexMarker.IconType
        mark = QgsVertexMarker(self._canvas)
        mark.setIconType(kinds.ICON_CROSS if label else kinds.ICON_X)
        mark.setColor(colour)
        mark.setPenWidth(width)
        mark.setIconSize(size)
        mark.setCenter(place)
        return mark

    def remove(self):
        """Take everything off the canvas for good."""
        self._canvas.destinationCrsChanged.disconnect(self._redraw)
        self.points([], None)
        for band in (self._ready, self._draft, self._box, self._hover):
            self._canvas.scene().removeItem(band)
        self._shown = {}

    def shown(self, what):
        """The geometry shown as "hover", "draft", "ready" or "box", in its own CRS, or None."""
        geometry, _ = self._shown.get(getattr(self, "_" + what), (None, None))
        return geometry

    def _redraw(self):
        for band, (geometry, crs) in list(self._shown.items()):
            self._show(band, geometry, crs)
        self.points(*self._points)

    def _show(self, band, geometry, crs):
        self._shown.pop(band, None)
        if geometry is None or geometry.isEmpty():
            band.reset(POLYGON)
            return
        self._shown[band] = (geometry, crs)
        band.setToGeometry(geometry, crs)

    def _on_map(self, point, crs):
        target = self._canvas.mapSettings().destinationCrs()
        return QgsCoordinateTransform(crs, target, QgsProject.instance()).transform(point)


def faint(colour):
    """The colour as a fill that lets the image through."""
    colour = QColor(colour)
    colour.setAlpha(50)
    return colour
