"""Run inside QGIS (`qgis.bin --code drive.py`): uses the panel as a person would.

Environment: GEOSAM_IMAGE, an aerial image; GEOSAM_WORK, a folder for what is made; GEOSAM_SHOTS, a
folder for pictures; PYTHONPATH, this folder. GEOSAM_WORK/report.json has what was seen, and the
figures that docs/qgis.md quotes; see test_desktop.py.
"""

import json
import math
import os
import signal
import statistics
import sys
import time
import traceback

from hands import (
    IMAGE,
    RIGHT,
    SHOTS,
    Gaps,
    Paints,
    click,
    drag,
    enlarge,
    key,
    move,
    pause,
    report,
    shot,
    wait,
)
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsFillSymbol,
    QgsProject,
    QgsRasterLayer,
    QgsRectangle,
    QgsSingleSymbolRenderer,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QObject, Qt, QTimer
from qgis.PyQt.QtWidgets import QScrollArea
from qgis.utils import iface, loadPlugin, plugins, startPlugin, unloadPlugin

WORK = os.environ["GEOSAM_WORK"]
PLUGIN = "geosam_qgis"


class Drive:
    def __init__(self):
        self.canvas = iface.mapCanvas()
        self.project = QgsProject.instance()

    def measure_loading(self):
        """Unload and load again, from the files: nothing of the plugin stays imported."""
        unloadPlugin(PLUGIN)
        for name in [name for name in sys.modules if name.split(".")[0] == PLUGIN]:
            del sys.modules[name]
        began = time.perf_counter()
        loadPlugin(PLUGIN)
        startPlugin(PLUGIN)
        report["load_ms"] = round((time.perf_counter() - began) * 1e3, 1)

    def open_image(self):
        iface.mainWindow().setGeometry(0, 0, 1240, 860)
        iface.mainWindow().findChild(QObject, "Browser").hide()
        self.layer = QgsRasterLayer(IMAGE, "aerial")
        self.project.addMapLayer(self.layer)
        self.project.setCrs(self.layer.crs())
        extent = self.layer.extent()
        self.view = QgsRectangle(
            extent.xMinimum() + 14,
            extent.yMaximum() - 25,
            extent.xMinimum() + 39,
            extent.yMaximum() - 2,
        )
        began = time.perf_counter()
        self.plugin = plugins[PLUGIN]
        self.plugin._action.setChecked(True)
        report["panel_ms"] = round((time.perf_counter() - began) * 1e3, 1)
        self.panel = self.plugin.panel
        self.dock = self.panel.dock
        self.dock.raster.setLayer(self.layer)
        wait(lambda: self.panel.image.is_open, "the raster to be opened", 120)
        wait(lambda: "self-test" in self.dock.engine_state.text(), "the self-test", 120)
        self.canvas.setExtent(self.view)
        report["engine"] = self.dock.engine_state.text()
        iface.messageBar().clearWidgets()
        self.panel.saving.make_layer(os.path.join(WORK, "trees.gpkg"))
        shot("1-opened")

    def hover_and_click(self):
        self.dock.encode.click()
        wait(lambda: self.panel.encoding.is_running, "encoding")
        wait(lambda: not self.panel.encoding.is_running, "the end of encoding", 120)
        self.dock.point.setChecked(True)
        extent = self.layer.extent()
        self.x, self.y = extent.xMinimum() + 33.6, extent.yMaximum() - 11.5  # a crown
        move(self.x - 2, self.y)
        pause(0.5)
        move(self.x, self.y)
        wait(lambda: self.panel.outlines.shown("hover"), "an outline under the mouse")
        pause(0.5)
        hovered = self.panel.outlines.shown("hover").asWkt(3)
        shot("2-hover")
        click(self.x, self.y)
        wait(lambda: self.panel.outlining.best, "an outline")
        report["hover is the click"] = self.panel.outlining.best["geometry"].asWkt(3) == hovered
        report["readings"] = len(self.panel.outlining.found)
        column = self.dock.findChild(QScrollArea)
        report["the panel fits"] = not column.verticalScrollBar().isVisible()
        shot("3-click")

    def correct_and_save(self):
        panel = self.panel
        before = panel.outlining.best["geometry"].area()
        box = panel.outlining.best["geometry"].boundingBox()
        click(box.xMinimum() + 0.8, box.center().y(), RIGHT)
        wait(lambda: panel.outlining.best and not panel.outlining.is_waiting, "a better outline")
        report["a background click changes it"] = panel.outlining.best["geometry"].area() != before
        shot("4-background")
        key(Qt.Key.Key_Backspace)
        wait(lambda: panel.outlining.best and not panel.outlining.is_waiting, "the outline before")
        report["Backspace takes it back"] = panel.outlining.best["geometry"].area() == before
        self.dock.simplify.setValue(1.0)
        wait(lambda: panel.outlining.best["geometry"].area() != before, "a simpler outline")
        report["simplified live"] = True
        self.dock.simplify.setValue(0)
        wait(lambda: panel.outlining.best["geometry"].area() == before, "the outline as it was")
        self.dock.kind.setCurrentText("tree")
        key(Qt.Key.Key_Return)
        wait(lambda: panel.saving.layer.featureCount() == 1, "a saved polygon")
        report["Enter saves"] = not len(panel.outlining.draft)

    def box_and_undo(self):
        panel, extent = self.panel, self.layer.extent()
        x, y = extent.xMinimum() + 21.5, extent.yMaximum() - 12.2
        drag(x - 5.0, y - 4, x + 4.4, y + 4.4, lambda: shot("5-box-drawn"))
        wait(lambda: panel.outlining.best, "the outline of a box")
        shot("6-box")
        self.dock.kind.setCurrentText("shrub")
        key(Qt.Key.Key_S)
        wait(lambda: panel.saving.layer.featureCount() == 2, "a second polygon")
        classes = sorted(f["class"] for f in panel.saving.layer.getFeatures())
        report["classes"] = classes
        move(extent.xMinimum() + 17, extent.yMaximum() - 23)
        shot("7-saved")
        panel.saving.layer.selectAll()
        click(self.x, self.y)
        key(Qt.Key.Key_Backspace)
        report["selected polygons stay"] = panel.saving.layer.featureCount() == 2
        panel.saving.layer.removeSelection()
        undo = iface.mainWindow().findChild(QObject, "mActionUndo")
        undo.trigger()
        wait(lambda: panel.saving.layer.featureCount() == 1, "QGIS's undo")
        report["Ctrl+Z undoes"] = True
        iface.mainWindow().findChild(QObject, "mActionRedo").trigger()
        wait(lambda: panel.saving.layer.featureCount() == 2, "QGIS's redo")

    def escape(self):
        click(self.x, self.y)
        wait(lambda: self.panel.outlining.best, "an outline")
        key(Qt.Key.Key_Escape)
        report["Esc clears"] = not len(self.panel.outlining.draft) and not self.panel.outlining.best

    def survive_a_crash(self):
        panel = self.panel
        click(self.x, self.y)
        click(self.x + 1.0, self.y + 0.5)
        wait(lambda: panel.outlining.best and not panel.outlining.is_waiting, "an outline")
        before = panel.outlining.best["geometry"].asWkt(3)
        began = time.monotonic()
        os.kill(panel.engine.about["pid"], signal.SIGKILL)
        wait(lambda: not panel.image.is_open, "the crash to be noticed")
        report["crash_ms"] = round((time.monotonic() - began) * 1e3, 1)
        pause(0.3)
        shot("8-crashed")
        report["prompts are kept"] = len(panel.outlining.draft) == 2
        self.dock.engine_button.click()
        wait(
            lambda: panel.image.is_open and panel.outlining.best, "the outline after a restart", 120
        )
        report["same outline after the crash"] = panel.outlining.best["geometry"].asWkt(3) == before
        wait(lambda: "self-test" in self.dock.engine_state.text(), "the self-test", 120)
        iface.messageBar().clearWidgets()
        shot("9-restarted")
        key(Qt.Key.Key_Escape)

    def use_another_crs(self):
        panel = self.panel
        click(self.x, self.y)
        wait(lambda: panel.outlining.best and not panel.outlining.is_waiting, "an outline")
        before = panel.outlining.best["geometry"]
        key(Qt.Key.Key_Escape)
        self.project.setCrs(QgsCoordinateReferenceSystem("EPSG:3857"))
        there = QgsCoordinateTransform(
            self.layer.crs(), QgsCoordinateReferenceSystem("EPSG:3857"), self.project
        )
        self.canvas.setExtent(there.transformBoundingBox(self.view))
        self.canvas.waitWhileRendering()
        click(self.x, self.y)
        wait(lambda: panel.outlining.best and not panel.outlining.is_waiting, "an outline")
        after = panel.outlining.best["geometry"]
        common = before.intersection(after).area()
        report["IoU with the map in EPSG:3857"] = round(
            common / (before.area() + after.area() - common), 3
        )
        key(Qt.Key.Key_Return)
        wait(lambda: panel.saving.layer.featureCount() == 3, "a polygon saved in EPSG:3857")
        click(self.x - 12.0, self.y - 0.5)
        wait(lambda: panel.outlining.best and not panel.outlining.is_waiting, "an outline")
        shot("10-web-mercator")
        key(Qt.Key.Key_Escape)
        self.project.setCrs(self.layer.crs())

    def encode_a_large_raster(self):
        panel, dock = self.panel, self.dock
        path = os.path.join(WORK, "large.tif")
        enlarge(path, 4)
        large = QgsRasterLayer(path, "large")
        self.project.addMapLayer(large)
        iface.setActiveLayer(panel.saving.layer)
        self.canvas.setExtent(large.extent())
        dock.raster.setLayer(large)
        wait(lambda: panel.image.is_open and panel.encoding.tile_s, "the large raster", 120)
        self.canvas.waitWhileRendering()
        dock.scope.setCurrentIndex(dock.scope.findData("whole"))
        gaps = Gaps()
        dock.encode.click()
        wait(lambda: dock.progress.value() >= 8, "eight tiles", 200)
        pause(1.2)
        gaps.stop("block")
        shot("11-encoding")
        pause(0.5)
        gaps = Gaps()
        dock.cancel.click()
        report["cancel_s"] = round(wait(lambda: not panel.encoding.is_running, "cancelling"), 2)
        pause(1.0)
        report["after cancelling"] = dock.image_state.text()
        gaps.stop("block")
        shot("12-cancelled")
        gaps = Gaps()
        done = int(dock.image_state.text().split()[0])
        report["done_when_cancelled"] = done
        dock.encode.click()
        wait(lambda: dock.progress.maximum() > 0, "progress")
        report["resumed_with"] = dock.progress.maximum()
        wait(lambda: not panel.encoding.is_running, "the rest of the tiles", 300)
        gaps.stop("block")
        pause(0.5)
        report["after resuming"] = dock.image_state.text()
        panel.saving.layer.commitChanges()
        self.large = large
        self.measure_hovering(large, "hover")
        self.measure_hovering(large, "hover_again")
        shot("13-encoded")

    def measure_hovering(self, layer, name):
        """From the mouse's move to the painted outline, each time when the one before is there."""
        self.dock.point.setChecked(True)
        extent = layer.extent()
        self.canvas.setExtent(
            QgsRectangle(
                extent.xMinimum(), extent.yMinimum() + 10, extent.xMaximum(), extent.yMaximum()
            )
        )
        self.canvas.waitWhileRendering()
        pause(0.5)
        paints, took = Paints(self.canvas.viewport()), []
        drawn = []
        self.panel.hovering.shown.connect(lambda: drawn.append(time.monotonic()))
        for number in range(60):
            x = extent.xMinimum() + 3 + number * 0.55  # a mouse that strolls over the image
            y = extent.yMaximum() - 15 - 9 * math.sin(number / 5)
            drawn.clear()
            began = time.monotonic()
            move(x, y)
            wait(lambda: drawn, "an outline under the mouse")
            shown = drawn[0]
            if self.panel.outlines.shown("hover"):
                wait(lambda shown=shown: paints.at >= shown, "the canvas to be painted", 5)
                took.append((paints.at - began) * 1e3)
        warm = took[10:]
        report[name + "_ms"] = round(statistics.median(warm), 1)
        report[name + "_p95_ms"] = round(sorted(warm)[int(len(warm) * 0.95)], 1)

    def look_for_everything(self):
        """Hovering goes on meanwhile, and Cancel ends it."""
        panel, dock = self.panel, self.dock
        self.start_many("whole")
        wait(lambda: dock.many_progress.maximum() > 0, "a tile", 120)
        gaps = Gaps()
        self.measure_hovering(self.large, "hover_beside")
        gaps.stop("block_many")
        report["everything went on"] = panel.many.is_running
        dock.many_cancel.click()
        began = time.monotonic()
        heard = []
        panel.engine.ask("self_test", {}, heard.append)  # in the same lane, behind it
        wait(lambda: heard, "the end of the search", 60)
        report["everything_cancel_s"] = round(time.monotonic() - began, 2)
        dock.point.setChecked(False)

    def start_many(self, scope):
        dock = self.dock
        dock.many.setCollapsed(False)
        dock.many_scope.setCurrentIndex(dock.many_scope.findData(scope))
        dock.many_start.click()
        wait(lambda: self.panel.many.is_running, "a batch to begin")

    def outline_a_layer(self):
        panel, dock, target = self.panel, self.dock, self.panel.saving.layer
        boxes = QgsVectorLayer(os.environ["GEOSAM_PROMPTS"] + "|geometrytype=Polygon", "boxes")
        line = {"color": "0,0,0,0", "outline_color": "#00b7ff", "outline_width": "0.6"}
        boxes.setRenderer(QgsSingleSymbolRenderer(QgsFillSymbol.createSimple(line)))
        self.project.removeMapLayer(self.large.id())
        self.project.addMapLayer(boxes)
        dock.raster.setLayer(self.layer)
        wait(lambda: panel.image.is_open, "the raster to be opened", 120)
        self.canvas.setExtent(self.layer.extent())
        dock.prompts_layer.setLayer(boxes)
        dock.kind.setCurrentText("tree")
        before = target.featureCount()
        gaps = Gaps()
        self.start_many("layer")
        wait(lambda: not panel.many.is_running, "the outlines of the boxes", 120)
        gaps.stop("block_many")
        report["batch"] = dock.many_state.text()
        report["batch has added"] = target.featureCount() - before
        shot("14-batch")
        iface.mainWindow().findChild(QObject, "mActionUndo").trigger()
        report["one undo takes the batch back"] = target.featureCount() == before
        target.commitChanges()
        self.project.removeMapLayer(boxes.id())

    def outline_everything(self):
        panel, dock = self.panel, self.dock
        self.project.removeMapLayer(panel.saving.layer.id())
        panel.saving.make_layer(os.path.join(WORK, "ground.gpkg"))
        dock.kind.setCurrentText("object")
        dock.coverage.setChecked(True)
        self.canvas.setExtent(self.view)
        self.canvas.waitWhileRendering()
        gaps = Gaps()
        self.start_many("view")
        wait(lambda: not panel.many.is_running, "everything in the view", 300)
        gaps.stop("block_many")
        report["everything"] = dock.many_state.text()
        report["everything has added"] = panel.saving.layer.featureCount()
        shot("15-everything")

    def all(self):
        self.measure_loading()
        for step in (
            self.open_image, self.hover_and_click, self.correct_and_save, self.box_and_undo,
            self.escape, self.survive_a_crash, self.use_another_crs, self.encode_a_large_raster,
            self.look_for_everything, self.outline_a_layer, self.outline_everything,
        ):  # fmt: skip
            report["step"] = step.__name__
            print(time.strftime("%X"), step.__name__, file=sys.stderr, flush=True)
            step()
        del report["step"]


def run():
    try:
        Drive().all()
        report["done"] = True
    except Exception:  # noqa: BLE001  # whatever it is, it is reported
        report["error"] = traceback.format_exc()
        iface.mainWindow().grab().save(os.path.join(SHOTS, "error.png"))
    with open(os.path.join(WORK, "report.json"), "w") as file:
        json.dump(report, file, indent=2)
    project = QgsProject.instance()
    for layer in project.mapLayers().values():
        if hasattr(layer, "rollBack"):
            layer.rollBack()
    project.clear()
    project.setDirty(False)
    iface.actionExit().trigger()


QTimer.singleShot(1500, run)
