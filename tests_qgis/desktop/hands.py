"""What a person does before QGIS's window, and what they notice. Imported by drive.py."""

import gc
import os
import sys
import time
import traceback

from osgeo import gdal
from qgis.core import QgsCoordinateTransform, QgsPointXY, QgsProject
from qgis.PyQt.QtCore import QEvent, QEventLoop, QObject, QPoint, Qt, QTimer
from qgis.PyQt.QtTest import QTest
from qgis.PyQt.QtWidgets import QApplication
from qgis.utils import iface

SHOTS = os.environ["GEOSAM_SHOTS"]
IMAGE = os.environ["GEOSAM_IMAGE"]
LEFT, RIGHT = Qt.MouseButton.LeftButton, Qt.MouseButton.RightButton
PLAIN = Qt.KeyboardModifier.NoModifier
FLAGS = QEventLoop.ProcessEventsFlag
WAITING = FLAGS.AllEvents | FLAGS.WaitForMoreEvents
report = {}
broken = []  # what went wrong in a callback, where QGIS would show a window


heartbeat = QTimer()  # nothing is waited for without end
heartbeat.start(20)


def note_error(*what):
    broken.append("".join(traceback.format_exception(*what)))


sys.excepthook = note_error


def wait(until, what, limit_s=60):
    began = time.monotonic()
    while not until():
        QApplication.processEvents(WAITING)  # as QGIS does: idle until something happens
        if broken:
            raise RuntimeError(broken[0])
        if time.monotonic() - began > limit_s:
            raise RuntimeError("waited in vain for " + what)
    return time.monotonic() - began


def pause(seconds):
    end = time.monotonic() + seconds
    wait(lambda: time.monotonic() > end, "time", seconds + 60)


def shot(name):
    canvas = iface.mapCanvas()
    canvas.waitWhileRendering()
    pause(0.3)
    iface.mainWindow().grab().save(os.path.join(SHOTS, name + ".png"))


def pixel(x, y):
    """The place on the canvas of a point in the raster's CRS."""
    canvas = iface.mapCanvas()
    crs = QgsProject.instance().mapLayersByName("aerial")[0].crs()
    there = QgsCoordinateTransform(
        crs, canvas.mapSettings().destinationCrs(), QgsProject.instance()
    )
    point = canvas.getCoordinateTransform().transform(there.transform(QgsPointXY(x, y)))
    return QPoint(round(point.x()), round(point.y()))


def move(x, y):
    QTest.mouseMove(iface.mapCanvas().viewport(), pixel(x, y))


def click(x, y, button=LEFT):
    move(x, y)
    QTest.mouseClick(iface.mapCanvas().viewport(), button, PLAIN, pixel(x, y))


def drag(x0, y0, x1, y1, while_down=None):
    viewport = iface.mapCanvas().viewport()
    QTest.mousePress(viewport, LEFT, PLAIN, pixel(x0, y0))
    for part in (0.3, 0.7, 1.0):
        move(x0 + part * (x1 - x0), y0 + part * (y1 - y0))
        pause(0.05)
    if while_down:
        while_down()
    QTest.mouseRelease(viewport, LEFT, PLAIN, pixel(x1, y1))


def key(code, modifier=PLAIN):
    QTest.keyClick(iface.mapCanvas(), code, modifier)


def enlarge(path, times):
    """A raster of several tiles: the image with finer pixels."""
    source = gdal.Open(IMAGE)
    side = source.RasterXSize * times
    gdal.Translate(path, source, width=side, height=side, resampleAlg="cubic")


class Paints(QObject):
    """Notices when the canvas has been painted."""

    def __init__(self, widget):
        super().__init__(widget)
        self.at = 0.0
        widget.installEventFilter(self)

    def eventFilter(self, _watched, event):
        if event.type() == QEvent.Type.Paint:
            QTimer.singleShot(0, self._note)
        return False

    def _note(self):
        self.at = time.monotonic()


class Gaps:
    """The longest time that the window did not come round to a timer of 5 ms.

    And the most that it computed in between: that counts no time in which others had the processor.
    Python's own garbage is collected before: that takes 50 ms in QGIS, whoever is at work.
    """

    def __init__(self):
        gc.collect()
        self.gaps, self.last = [(0.0, 0.0)], None
        self.timer = QTimer()
        self.timer.timeout.connect(self._tick)
        self.timer.start(5)

    def _tick(self):
        now = time.monotonic(), time.thread_time()
        if self.last:
            self.gaps.append((now[0] - self.last[0], now[1] - self.last[1]))
        self.last = now

    def stop(self, name):
        self.timer.stop()
        for key, values in zip((f"{name}_ms", f"{name}_cpu_ms"), zip(*self.gaps)):
            report[key] = max(report.get(key, 0), round(max(values) * 1e3, 1))
