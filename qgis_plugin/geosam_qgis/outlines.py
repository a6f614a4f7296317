"""What is drawn over the map: the outline under the mouse, the draft's outline and its prompts."""

from qgis.core import QgsGeometry, QgsPointXY, QgsRectangle, QgsWkbTypes
from qgis.gui import QgsRubberBand, QgsVertexMarker
from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtGui import QColor

POLYGON = QgsWkbTypes.GeometryType.PolygonGeometry
LINE = QgsWkbTypes.GeometryType.LineGeometry
HOVER = QColor(255, 255, 255, 200)
ON, BESIDE = QColor("#2ca02c"), QColor("#d62728")


class Outlines:
    """Rubber bands and markers of one canvas; all are removed by `remove`."""

    def __init__(self, canvas):
        self._canvas = canvas
        self._hover = self._band(POLYGON, HOVER, 2, Qt.PenStyle.DashLine)
        self._draft = self._band(POLYGON, QColor("#ff7f0e"), 3)
        self._box = self._band(POLYGON, QColor("#1f77b4"), 2)
        self._tiles = self._band(POLYGON, QColor(31, 119, 180, 90), 1)
        self._marks = []
        self._bands = (self._hover, self._draft, self._box, self._tiles)

    def _band(self, kind, colour, width, style=Qt.PenStyle.SolidLine):
        band = QgsRubberBand(self._canvas, kind)
        band.setStrokeColor(colour)
        fill = QColor(colour)
        fill.setAlpha(colour.alpha() // 6)
        band.setFillColor(fill)
        band.setWidth(width)
        band.setLineStyle(style)
        return band

    def set_colour(self, colour):
        """The class's colour, for the draft's outline."""
        fill = QColor(colour)
        fill.setAlpha(60)
        self._draft.setStrokeColor(colour)
        self._draft.setFillColor(fill)

    def hover(self, geometry, crs):
        """Show a geometry in a CRS under the mouse; None hides it."""
        self._show(self._hover, geometry, crs)

    def draft(self, geometry, crs):
        """Show the draft's outline; None hides it."""
        self._show(self._draft, geometry, crs)

    def tiles(self, geometry, crs):
        """Show which tiles are encoded; None hides them."""
        self._show(self._tiles, geometry, crs)

    def box(self, rectangle):
        """Show a box in the canvas's coordinates while it is dragged; None hides it."""
        geometry = None if rectangle is None else QgsGeometry.fromRect(QgsRectangle(rectangle))
        self._show(self._box, geometry, None)

    def prompts(self, points):
        """Mark the draft's clicks: (x, y, label) in the canvas's coordinates."""
        for mark in self._marks:
            self._canvas.scene().removeItem(mark)
        self._marks = []
        for x, y, label in points:
            mark = QgsVertexMarker(self._canvas)
            mark.setCenter(QgsPointXY(x, y))
            mark.setIconType(
                QgsVertexMarker.IconType.ICON_CROSS if label else QgsVertexMarker.IconType.ICON_X
            )
            mark.setColor(ON if label else BESIDE)
            mark.setIconSize(12)
            mark.setPenWidth(3)
            self._marks.append(mark)

    def clear(self):
        """Hide all that belongs to the draft."""
        self.hover(None, None)
        self.draft(None, None)
        self.box(None)
        self.prompts([])

    def remove(self):
        """Take everything off the canvas for good."""
        self.prompts([])
        for band in self._bands:
            self._canvas.scene().removeItem(band)
        self._bands = ()

    def _show(self, band, geometry, crs):
        if geometry is None or geometry.isEmpty():
            band.reset(POLYGON)
        elif crs is None:
            band.setToGeometry(geometry, None)
        else:
            band.setToGeometry(geometry, crs)
