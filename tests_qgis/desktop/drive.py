"""Run inside QGIS (`qgis.bin --code drive.py`): uses the panel as a person would, takes pictures."""

import json
import os
import time
import traceback

from qgis.core import QgsProject, QgsRasterLayer
from qgis.PyQt.QtCore import QPoint, Qt, QTimer
from qgis.PyQt.QtTest import QTest
from qgis.PyQt.QtWidgets import QApplication
from qgis.utils import iface, plugins

SHOTS = os.environ["GEOSAM_SHOTS"]
IMAGE = os.environ["GEOSAM_IMAGE"]
report = {}


def wait(until, what, limit_s=30):
    began = time.monotonic()
    while not until():
        QApplication.processEvents()
        time.sleep(0.005)
        if time.monotonic() - began > limit_s:
            raise RuntimeError("waited in vain for " + what)
    return time.monotonic() - began


def pause(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.005)


def shot(name):
    iface.mapCanvas().waitWhileRendering()
    pause(0.3)
    iface.mainWindow().grab().save(os.path.join(SHOTS, name + ".png"))


def pixel(x, y):
    point = iface.mapCanvas().getCoordinateTransform().transform(x, y)
    return QPoint(round(point.x()), round(point.y()))


def drive():
    iface.mainWindow().setGeometry(0, 0, 1400, 900)
    layer = QgsRasterLayer(IMAGE, "OSBS_029")
    QgsProject.instance().addMapLayer(layer)
    canvas = iface.mapCanvas()
    canvas.setExtent(layer.extent())
    plugin = plugins["geosam_qgis"]
    plugin._action.setChecked(True)
    panel = plugin.panel
    panel.dock.raster.setLayer(layer)
    wait(lambda: panel.scene is not None, "the raster to be opened", 60)
    panel.create_target(os.path.join(SHOTS, "trees.gpkg"))
    shot("1-opened")
    panel.dock.encode.click()
    wait(lambda: panel._encoding is not None, "encoding")
    wait(lambda: panel._encoding is None, "the end of encoding", 120)
    shot("2-encoded")
    panel.dock.point.setChecked(True)
    extent = layer.extent()
    x, y = extent.xMinimum() + 20.0, extent.yMaximum() - 20.0
    QTest.mouseMove(canvas.viewport(), pixel(x - 5, y))
    pause(0.2)
    QTest.mouseMove(canvas.viewport(), pixel(x, y))
    pause(1.0)
    shot("3-hover")
    QTest.mouseClick(canvas.viewport(), Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, pixel(x, y))
    wait(lambda: panel.answers, "an outline")
    shot("4-clicked")
    report["status"] = panel.dock.object_state.text()


def run():
    try:
        drive()
        report["done"] = True
    except Exception:
        report["error"] = traceback.format_exc()
        iface.mainWindow().grab().save(os.path.join(SHOTS, "error.png"))
    with open(os.path.join(SHOTS, "report.json"), "w") as file:
        json.dump(report, file, indent=2)
    project = QgsProject.instance()
    project.clear()
    project.setDirty(False)
    iface.actionExit().trigger()


QTimer.singleShot(1500, run)
