"""Someone who uses the panel, offscreen, with a fake engine that answers with squares."""

import sys
from pathlib import Path

from geosam_qgis.panel import Panel
from qgis.core import (
    QgsCoordinateTransform,
    QgsPointXY,
    QgsProject,
    QgsRasterLayer,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QEvent, QPoint, QPointF, Qt
from qgis.PyQt.QtGui import QMouseEvent
from qgis.PyQt.QtTest import QTest
from qgis.PyQt.QtWidgets import QApplication

FAKE = [sys.executable, str(Path(__file__).with_name("fake_engine.py"))]
IMAGE = Path(__file__).parents[1] / "geosam" / "demo" / "OSBS_029.tif"
X, Y = 404220.0, 3285110.0  # in the image
LEFT, RIGHT = Qt.MouseButton.LeftButton, Qt.MouseButton.RightButton
PLAIN = Qt.KeyboardModifier.NoModifier


class User:
    """Someone with a mouse and keys before a panel."""

    def __init__(self, qtbot, iface, command):
        self.qtbot = qtbot
        self.canvas = iface.mapCanvas()
        self.canvas.setParent(None)  # the stubbed window is never laid out
        self.canvas.resize(600, 600)
        self.canvas.show()
        self.until(lambda: self.canvas.mapSettings().outputSize().width() > 590)
        self.panel = Panel(iface, command)
        self.outlining, self.dock = self.panel.outlining, self.panel.dock
        self.layer = QgsRasterLayer(str(IMAGE), "aerial")
        QgsProject.instance().addMapLayer(self.layer)
        self.canvas.setDestinationCrs(self.layer.crs())
        self.canvas.setExtent(self.layer.extent())
        self.panel.start()
        self.dock.raster.setLayer(self.layer)
        self.until(lambda: self.panel.image.is_open)
        self.dock.point.setChecked(True)

    def until(self, what):
        self.qtbot.waitUntil(lambda: bool(what()), timeout=10000)

    def pixel(self, x, y):
        crs = self.canvas.mapSettings().destinationCrs()
        there = QgsCoordinateTransform(self.layer.crs(), crs, QgsProject.instance())
        at = self.canvas.getCoordinateTransform().transform(there.transform(QgsPointXY(x, y)))
        return QPoint(round(at.x()), round(at.y()))

    def move(self, x, y):
        at = QPointF(self.pixel(x, y))  # without a screen QTest moves no mouse
        event = QMouseEvent(
            QEvent.Type.MouseMove, at, Qt.MouseButton.NoButton, Qt.MouseButton.NoButton, PLAIN
        )
        QApplication.sendEvent(self.canvas.viewport(), event)

    def click(self, x=X, y=Y, button=LEFT):
        QTest.mouseClick(self.canvas.viewport(), button, PLAIN, self.pixel(x, y))
        self.settle()

    def drag(self, x0, y0, x1, y1):
        QTest.mousePress(self.canvas.viewport(), LEFT, PLAIN, self.pixel(x0, y0))
        self.move((x0 + x1) / 2, (y0 + y1) / 2)
        QTest.mouseRelease(self.canvas.viewport(), LEFT, PLAIN, self.pixel(x1, y1))
        self.settle()

    def key(self, code):
        QTest.keyClick(self.canvas, code)

    def settle(self):
        self.until(lambda: not self.outlining.is_waiting)

    @property
    def best(self):
        return self.outlining.best["geometry"]

    def target(self, kind="MultiPolygon?crs=EPSG:32617&field=class:string&field=score:double"):
        layer = QgsVectorLayer(kind, "target", "memory")
        QgsProject.instance().addMapLayer(layer)
        self.dock.target.setLayer(layer)
        return layer
