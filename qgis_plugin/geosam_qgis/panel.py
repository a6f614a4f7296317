"""What the panel does: ties the widgets, the mouse, the engine and the layer that is saved to."""

import json
import os

from qgis.core import (
    Qgis,
    QgsMessageLog,
    QgsProject,
    QgsRasterLayer,
)
from qgis.PyQt.QtCore import QObject
from qgis.PyQt.QtWidgets import QApplication, QFileDialog, QPushButton

from .areas import NoArea, area_given
from .dock import Dock
from .encoding import Encoding
from .engine import Engine
from .hovering import Hovering
from .image import Image, crs_name
from .many import Many
from .map_tool import PromptTool
from .models import Models
from .outlines import Outlines
from .outlining import Outlining
from .rasters import export
from .saving import Saving
from .shaping import Shape
from .words import duration, outline_facts, tr

TESTED_IOU = 0.8  # with the square of the self-test, that a working model reaches


class Panel(QObject):
    """The panel of one QGIS window."""

    def __init__(self, iface, command):
        """`command` gives the engine's command as a list, or None if there is none yet."""
        super().__init__(iface.mainWindow())
        self._iface = iface
        self._canvas = iface.mapCanvas()
        self._command = command
        self._save_soon = False  # asked for while the outline is still on its way
        self.engine = None
        self.dock = Dock(iface.mainWindow())
        self.tool = PromptTool(self._canvas)
        self.outlines = Outlines(self._canvas)
        self.image = Image(self)
        self.models = Models(self.dock.model, self)
        self.encoding = Encoding(self.image, self.outlines)
        self.outlining = Outlining(self.image, self.outlines, self._canvas, self.shape)
        self.hovering = Hovering(self.image, self.outlines, self.outlining.draft_with, self.shape)
        self.saving = Saving(self.dock, iface, self)
        self.many = Many(self.dock, iface, self.image, self.saving, self.shape)
        self._connect_dock()
        self._connect_parts()
        self.saving.read()

    def _connect_dock(self):
        dock, tool = self.dock, self.tool
        dock.raster.layerChanged.connect(lambda _layer: self.open())
        dock.encode.clicked.connect(lambda: self.encode())
        dock.export.clicked.connect(lambda: self._ask_for_export())
        dock.cancel.clicked.connect(self._cancel)
        dock.point.toggled.connect(self._use_tool)
        for control in (dock.simplify, dock.min_area, dock.holes):
            control.valueChanged.connect(lambda _value: self.outlining.redraw())
        dock.square.toggled.connect(lambda _on: self.outlining.redraw())
        for number, button in enumerate(dock.readings):
            button.clicked.connect(lambda _on, number=number: self.outlining.choose(number))
        dock.save.clicked.connect(lambda: self.save())
        dock.back.clicked.connect(self.outlining.take_back)
        dock.clear.clicked.connect(self.outlining.clear)
        dock.engine_button.clicked.connect(lambda: self.start())
        dock.engine_menu.addAction(tr("Restart the engine")).triggered.connect(
            lambda _on: self.start()
        )
        dock.closed.connect(lambda: dock.point.setChecked(False))
        tool.clicked.connect(self.outlining.add_point)
        tool.boxed.connect(self.outlining.add_box)
        tool.dragged.connect(self._dragged)
        tool.hovered.connect(self.hovering.move)
        tool.entered.connect(self._take_keys)
        tool.left.connect(self.hovering.stop)
        tool.wanted.connect(self._do)
        tool.deactivated.connect(lambda: dock.point.setChecked(False))

    def _connect_parts(self):
        self.image.opened.connect(self._opened)
        self.image.shut.connect(self._shut)
        self.image.fileless.connect(lambda: self.dock.export.setVisible(True))
        self.models.chosen.connect(lambda _name: self.open())
        self.models.fetching.connect(self.dock.show_progress)
        self.models.fetched.connect(self.dock.hide_progress)
        self.models.failed.connect(self._warn)
        self.encoding.progressed.connect(self.dock.show_progress)
        self.encoding.ended.connect(self._encoded)
        self.encoding.counted.connect(self._counted)
        self.outlining.prompted.connect(self._prompted)
        self.outlining.answered.connect(self._answered)
        self.outlining.failed.connect(self.dock.object_state.setText)
        self.hovering.unready.connect(self._unready)
        self.saving.coloured.connect(self.outlines.set_colour)
        self.saving.failed.connect(self._warn)
        QgsProject.instance().layersRemoved.connect(self._removed)
        self.many.failed.connect(self._warn)

    # The engine

    def start(self):
        """Start the engine, in place of the one before, or say that there is none."""
        self._stop_engine()
        command = self._command()
        if command is None:
            self._engine_says(tr("No engine found."), button=tr("Look again"))
            return
        self.engine = self.image.engine = Engine(command, self)
        self.engine.ready.connect(self._ready)
        self.engine.gone.connect(self._gone)
        self.engine.said.connect(lambda line: QgsMessageLog.logMessage(line, "geosam"))
        self.dock.engine_state.setToolTip(" ".join(command))
        self._engine_says(tr("Starting the engine..."))
        self.engine.start()

    def _stop_engine(self):
        if self.engine is not None:
            self.engine.kill()
            self.image.lose()
            self.engine.deleteLater()
            self.engine = self.image.engine = None

    def _ready(self, about):
        self._engine_says(tr("geosam {}: ready").format(about.get("version", "?")))
        self.models.ask(self.engine)
        self.open()
        self.test()

    def test(self):
        """Let the engine outline a drawn square, and say how that went."""
        version = self.engine.about.get("version", "?")
        self.engine.ask(
            "self_test", {"model": self.models.name},
            lambda facts: self._tested(version, facts),
            lambda _kind, message: self._engine_says(
                tr("geosam {}: self-test failed: {}").format(version, message)
            ),
        )  # fmt: skip

    def _tested(self, version, facts):
        how = tr("self-test passed") if facts["iou"] >= TESTED_IOU else tr("self-test failed")
        self._engine_says(
            tr("geosam {} · {} on {} · {}").format(
                version, facts["model"].rsplit("-", 1)[0], facts["device"].upper(), how
            )
        )
        self.dock.engine_state.setToolTip(
            tr("{}\n{}: IoU with a drawn square {}, encoding {} ms, decoding {} ms").format(
                " ".join(self.engine.command), facts["model"], facts["iou"],
                facts["encode_ms"], facts["decode_ms"],
            )
        )  # fmt: skip

    def _gone(self, why):
        self.image.lose()
        self.dock.hide_progress()
        self._engine_says(tr("The engine stopped. Prompts are kept."), button=tr("Restart"))
        QgsMessageLog.logMessage(why, "geosam", Qgis.MessageLevel.Critical)
        bar = self._iface.messageBar()
        note = bar.createMessage(
            "geosam", tr("The engine stopped ({}).").format(why.splitlines()[0])
        )
        button = QPushButton(tr("Restart"))
        button.clicked.connect(lambda: (bar.popWidget(note), self.start()))
        note.layout().addWidget(button)
        bar.pushWidget(note, Qgis.MessageLevel.Warning)

    def _engine_says(self, text, button=None):
        self.dock.engine_state.setText(text)
        self.dock.engine_button.setVisible(button is not None)
        self.dock.engine_button.setText(button or "")

    def close(self):
        """End everything that the panel began."""
        if self._canvas.mapTool() is self.tool:
            self._canvas.unsetMapTool(self.tool)
        self.many.cancel()
        if self.engine is not None:
            self.engine.close()
        self.saving.stop()
        QgsProject.instance().layersRemoved.disconnect(self._removed)
        for part in (self.dock.raster, self.dock.target, self.image):
            part.blockSignals(True)  # layers may go later than the panel
        self.outlines.remove()

    # The image

    def open(self):
        """Open the raster and the model that are chosen."""
        self.dock.image_state.setText(tr("Opening...") if self.dock.raster.currentLayer() else "")
        self.dock.export.setVisible(False)
        self.image.open(self.dock.raster.currentLayer(), self.models.name)

    def _removed(self, layers):
        """The list of rasters goes on to another one then, and tells nobody."""
        if self.image.layer_id in layers:
            self.open()

    def _opened(self, _answer):
        self.saving.crs = self.image.crs

    def _shut(self, why):
        self.dock.image_state.setText(why)

    def _ask_for_export(self):
        path, _ = QFileDialog.getSaveFileName(
            self.dock, tr("Export what the map shows"), QgsProject.instance().homePath(),
            "GeoTIFF (*.tif)",
        )  # fmt: skip
        if path:
            self.export(path if path.lower().endswith((".tif", ".tiff")) else path + ".tif")

    def export(self, path):
        """Write what the map shows of a layer without a file, and open that."""
        self.dock.export.setEnabled(False)
        layer, settings = self.dock.raster.currentLayer(), self._canvas.mapSettings()
        export(layer, settings, path, self._exported, self._not_exported)

    def _exported(self, path):
        self.dock.export.setEnabled(True)
        name = os.path.splitext(os.path.basename(path))[0]
        layer = QgsProject.instance().addMapLayer(QgsRasterLayer(path, name))
        self.dock.raster.setLayer(layer)

    def _not_exported(self, why):
        self.dock.export.setEnabled(True)
        self._warn(why)

    def encode(self):
        """Encode what is chosen in the panel, from the middle of the map outward."""
        if not self.image.is_open:
            self._warn(tr("Choose a raster first."))
            return
        try:
            area = area_given(self.dock.scope.currentData(), self._iface)
        except NoArea as why:
            self._warn(str(why))
            return
        self.encoding.start(self._canvas.extent().center(), self._map_crs(), area)

    def _encoded(self, why):
        self.dock.hide_progress()
        if why:
            self._warn(why)

    def _counted(self, done, total):
        words = tr("{} of {} tiles encoded").format(done, total)
        if self.encoding.tile_s and done < total and not self.encoding.is_running:
            words += tr(". The rest takes {} and {:.0f} MB.").format(
                duration(self.encoding.tile_s * (total - done)),
                self.encoding.tile_mb * (total - done),
            )
        self.dock.image_state.setText(words)

    def _cancel(self):
        self.encoding.cancel()
        self.models.cancel()

    # The object

    def shape(self):
        """How outlines are to be drawn."""
        dock = self.dock
        return Shape(
            simplify_m=dock.simplify.value() or None,
            min_area_m2=dock.min_area.value(),
            holes_m2=dock.holes.value() or None,
            square=dock.square.isChecked(),
        )

    def save(self):
        """Save the outline to the layer, and begin a new object."""
        self._save_soon = self.outlining.is_waiting
        if self._save_soon:
            return
        if self.many.is_saving:
            self._warn(tr("Many outlines are being saved. Save this one in a moment."))
            return
        best = self.outlining.best
        if best is None:
            self._warn(tr("Nothing to save yet: click on an object."))
            return
        draft = self.outlining.draft
        asked = json.dumps(dict(draft.request(), crs=crs_name(draft.crs)))
        values = {**self.image.facts, "prompts": asked}
        if self.saving.save(best, self.image.crs, values):
            self.outlining.clear()
            self.dock.object_state.setText(tr("Saved. Ctrl+Z takes it back."))

    def _do(self, wish):
        if wish == "save":
            self.save()
        elif wish == "take_back":
            self.outlining.take_back()
        else:
            self.outlining.clear()

    def _use_tool(self, on):
        if on:
            self._canvas.setMapTool(self.tool)
            self._canvas.setFocus()
            self.saving.use()
        elif self._canvas.mapTool() is self.tool:
            self._canvas.unsetMapTool(self.tool)

    def _take_keys(self):
        """Keys follow the mouse to the map, from the panel only."""
        focus = QApplication.focusWidget()
        if focus is not None and self.dock.isAncestorOf(focus):
            self._canvas.setFocus()

    def _dragged(self, rectangle):
        if rectangle is None:
            self.outlining.show_prompts()
        else:
            self.hovering.stop()
            self.outlines.box(rectangle, self._canvas.mapSettings().destinationCrs())

    def _prompted(self):
        self._save_soon = False
        self.hovering.stop()
        self.dock.show_prompts(self.outlining.draft)

    def _answered(self):
        outlining = self.outlining
        scores = [p["score"] if p["geometry"] is not None else None for p in outlining.found]
        self.dock.show_readings(scores, outlining.chosen)
        self.dock.object_state.setText(self._object_facts())
        if not outlining.is_waiting:
            if outlining.found:
                self.encoding.look()
            if self._save_soon:
                self.save()

    def _object_facts(self):
        outlining = self.outlining
        if outlining.is_waiting:
            return tr("Outlining...")
        if outlining.found:
            return outline_facts(outlining.found[outlining.chosen])
        if len(outlining.draft) and not outlining.draft.says_where:
            return tr("Now click on the object.")
        return ""

    def _unready(self):
        if not len(self.outlining.draft):
            self.dock.object_state.setText(
                tr("Not encoded here: Encode it for outlines under the mouse. A click works too.")
            )

    # The map

    def _map_crs(self):
        return crs_name(self._canvas.mapSettings().destinationCrs())

    def _warn(self, text):
        self._iface.messageBar().pushMessage("geosam", text, Qgis.MessageLevel.Warning, 8)
