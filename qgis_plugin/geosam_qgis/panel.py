"""What the panel does: ties the widgets, the mouse, the engine and the layer that is saved to."""

import os

from qgis.core import (
    Qgis,
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsGeometry,
    QgsPointXY,
    QgsProject,
    QgsWkbTypes,
)
from qgis.PyQt.QtCore import QObject, QTimer
from qgis.PyQt.QtWidgets import QFileDialog

from .dock import Dock, tr
from .draft import Draft
from .engine import Engine
from .map_tool import PromptTool
from .outlines import Outlines
from .rasters import NoSource, source_of
from .target import NotSaved, new_geopackage, save

HOVER_AREA_LIMIT = 0.15  # s a tile may take to encode, for hovering to encode it


class Panel(QObject):
    """The panel of one QGIS window."""

    def __init__(self, iface, command):
        """`command` gives the engine's command as a list, or None if there is none yet."""
        super().__init__(iface.mainWindow())
        self._iface = iface
        self._canvas = iface.mapCanvas()
        self._command = command
        self.engine = None
        self.scene = None  # handle of the opened raster
        self.crs = None  # of the raster
        self._opening = None  # the layer and the model that the handle is of
        self._quick = False  # whether a tile is encoded fast enough for hovering
        self.draft = Draft()
        self.answers = []  # the readings of the draft, best first
        self.chosen = 0
        self._asked = None  # number of the draft's request
        self._hovering = None  # number of the request under way
        self._hover_next = None  # where the mouse is by now
        self._encoding = None
        self.dock = Dock(iface.mainWindow())
        self.tool = PromptTool(self._canvas)
        self.outlines = Outlines(self._canvas)
        self._redraw = QTimer(self)
        self._redraw.setSingleShot(True)
        self._redraw.setInterval(60)
        self._redraw.timeout.connect(self._vectorize)
        self._connect()

    def _connect(self):
        dock, tool = self.dock, self.tool
        dock.raster.layerChanged.connect(lambda _layer: self._open())
        dock.model.currentTextChanged.connect(lambda _text: self._open())
        dock.encode.clicked.connect(self.encode)
        dock.cancel.clicked.connect(self._cancel_encoding)
        dock.point.toggled.connect(self._use_tool)
        dock.simplify.valueChanged.connect(lambda _value: self._redraw.start())
        dock.min_area.valueChanged.connect(lambda _value: self._redraw.start())
        dock.new_target.clicked.connect(self._new_target)
        dock.colour.colorChanged.connect(self.outlines.set_colour)
        dock.save.clicked.connect(self.save)
        dock.back.clicked.connect(self.take_back)
        dock.clear.clicked.connect(self.clear)
        dock.engine_button.clicked.connect(self.start)
        for number, button in enumerate(dock.reading_buttons):
            button.clicked.connect(lambda _on, number=number: self._choose(number))
        tool.clicked.connect(self._clicked)
        tool.boxed.connect(self._boxed)
        tool.dragged.connect(self.outlines.box)
        tool.hovered.connect(self._hover)
        tool.left.connect(self._unhover)
        tool.wanted.connect(lambda wish: getattr(self, wish)())
        tool.deactivated.connect(lambda: dock.point.setChecked(False))
        self._canvas.destinationCrsChanged.connect(self._canvas_crs_changed)

    # The engine

    def start(self):
        """Start the engine, or say that there is none."""
        self.dock.engine_button.setVisible(False)
        command = self._command()
        if command is None:
            self._engine_says(tr("No engine found. Install it from the … menu."), button=True)
            return
        if self.engine is not None:
            self.engine.deleteLater()
        self.engine = Engine(command, self)
        self.engine.ready.connect(self._ready)
        self.engine.gone.connect(self._gone)
        self._engine_says(tr("Starting the engine..."))
        self.engine.start()

    def _ready(self, about):
        self._engine_says(tr("geosam {}: ready").format(about.get("version", "?")))
        self.engine.ask("models", {}, self._list_models)
        self._open()

    def _gone(self, why):
        self.scene = self._asked = self._hovering = self._encoding = None
        self.dock.show_progress(None, None, None)
        self._engine_says(tr("The engine stopped. Your prompts are kept."), button=True)
        self._warn(tr("The engine stopped: {}").format(why.splitlines()[0]))

    def _engine_says(self, text, button=False):
        self.dock.engine_state.setText(text)
        self.dock.engine_button.setVisible(button)
        self.dock.engine_button.setText(tr("Restart") if self.engine else tr("Start"))

    def _list_models(self, answer):
        box = self.dock.model
        box.blockSignals(True)
        current = box.currentText()
        box.clear()
        box.addItems([model["name"] for model in answer["models"] if model["ready"]])
        box.setCurrentText(current)
        box.blockSignals(False)

    def close(self):
        """End everything that the panel began."""
        if self._canvas.mapTool() is self.tool:
            self._canvas.unsetMapTool(self.tool)
        self.outlines.remove()
        if self.engine is not None:
            self.engine.close()

    # The image

    def _open(self):
        layer = self.dock.raster.currentLayer()
        self.scene = None
        if layer is None or self.engine is None or not self.engine.is_running:
            return
        try:
            source = source_of(layer)
        except NoSource as why:
            self.dock.image_state.setText(str(why))
            return
        self.dock.image_state.setText(tr("Opening..."))
        model = self.dock.model.currentText() or "nano"
        self._opening = (layer.id(), model)
        wanted = self._opening
        self.engine.ask(
            "open", {"raster": source, "model": model},
            lambda answer: self._opened(answer, wanted),
            lambda _kind, message: self.dock.image_state.setText(message),
        )  # fmt: skip

    def _opened(self, answer, wanted):
        if wanted != self._opening:
            self.engine.ask("close", {"scene": answer["scene"]})
            return
        self.scene = answer["scene"]
        self.crs = QgsCoordinateReferenceSystem.fromWkt(answer["crs"])
        self._engine_says(
            tr("{} on {}").format(answer["model"], str(answer.get("device", "")).upper())
        )
        layer = self.dock.raster.currentLayer()
        if layer is not None and self.crs.isValid() and layer.crs() != self.crs:
            self._warn(
                tr("QGIS shows {} in another CRS than its file has. Outlines follow the file.").format(
                    layer.name()
                )
            )
        self._show_grids(answer["grids"])
        self.engine.ask("plan", {"scene": self.scene, "scales": [1]}, self._planned)
        self._ask()

    def _planned(self, plan):
        self._quick = plan["tile_s"] <= HOVER_AREA_LIMIT

    def _show_grids(self, grids):
        grid = next((grid for grid in grids if grid["scale"] == 1), None)
        if grid:
            self.dock.image_state.setText(
                tr("{} of {} tiles encoded").format(grid["done"], grid["tiles"])
            )
        self._show_tiles()

    def _show_tiles(self):
        if self.scene is not None:
            self.engine.ask("tiles", {"scene": self.scene, "scale": 1}, self._tiles)

    def _tiles(self, answer):
        rings = [
            QgsGeometry.fromPolygonXY([[QgsPointXY(x, y) for x, y in tile["ring"]]])
            for tile in answer["tiles"]
        ]
        merged = QgsGeometry.unaryUnion(rings) if rings else None
        self.outlines.tiles(merged, self.crs)

    def encode(self):
        """Encode what is chosen in the panel, from the middle of the map outward."""
        if self.scene is None:
            self._warn(tr("Choose a raster first."))
            return
        given = {"scene": self.scene, "crs": self._canvas_crs()}
        middle = self._canvas.extent().center()
        given["view"] = [middle.x(), middle.y()]
        scope = self.dock.scope.currentData()
        if scope == "view":
            given["area"] = as_geojson(QgsGeometry.fromRect(self._canvas.extent()))
        elif scope == "selection":
            area = self._selected_area()
            if area is None:
                self._warn(tr("Select polygons in the layer to save to, or choose another extent."))
                return
            given["area"] = as_geojson(area)
        self.dock.show_progress(0, 0, None)
        self._encoding = self.engine.ask(
            "encode", given, self._encoded, self._not_encoded, self._encoding_goes_on
        )

    def _selected_area(self):
        layer = self.dock.target.currentLayer()
        if layer is None or not layer.selectedFeatureCount():
            return None
        area = QgsGeometry.unaryUnion([f.geometry() for f in layer.selectedFeatures()])
        canvas = self._canvas.mapSettings().destinationCrs()
        area.transform(QgsCoordinateTransform(layer.crs(), canvas, QgsProject.instance()))
        return area

    def _encoding_goes_on(self, done, total, left_s):
        self.dock.show_progress(done, total, left_s)
        if done % 8 == 0:
            self._show_tiles()

    def _encoded(self, answer):
        self._encoding = None
        self.dock.show_progress(None, None, None)
        self._show_grids(answer["grids"])

    def _not_encoded(self, kind, message):
        self._encoding = None
        self.dock.show_progress(None, None, None)
        self._show_tiles()
        if kind != "Cancelled":
            self._warn(message)

    def _cancel_encoding(self):
        if self._encoding is not None:
            self.engine.cancel(self._encoding)

    # The object

    def _use_tool(self, on):
        if on:
            self._canvas.setMapTool(self.tool)
            self._canvas.setFocus()
        elif self._canvas.mapTool() is self.tool:
            self._canvas.unsetMapTool(self.tool)

    def _clicked(self, x, y, label):
        self._begin()
        self.draft.add_point(x, y, label)
        self._changed()

    def _boxed(self, rectangle):
        self._begin()
        self.draft.add_box(
            rectangle.xMinimum(), rectangle.yMinimum(), rectangle.xMaximum(), rectangle.yMaximum()
        )
        self._changed()

    def _begin(self):
        if not len(self.draft):
            self.draft.crs = self._canvas_crs()

    def take_back(self):
        """Take back the last prompt."""
        self.draft.take_back()
        self._changed()

    def clear(self):
        """Forget the draft."""
        self.draft.clear()
        self._changed()

    def _changed(self):
        self._unhover()
        self.dock.show_prompts(self.draft)
        self._show_marks()
        self._ask()

    def _show_marks(self):
        self.outlines.prompts(
            [rest for kind, *rest in self.draft if kind == "point"]
        )

    def _ask(self):
        """Ask for the draft's outline, if there is anything to ask for."""
        request = self.draft.request()
        if self._asked is not None and self.engine is not None:
            self.engine.cancel(self._asked)
            self._asked = None
        if request is None or self.scene is None:
            self._show_answers([])
            return
        self.dock.object_state.setText(tr("..."))
        given = {
            "scene": self.scene, "prompts": [request], "crs": self.draft.crs,
            "multimask": self.draft.is_lone_click, **self._shape(),
        }  # fmt: skip
        number = self.engine.ask(
            "segment", given,
            lambda answer: self._answered(number, answer["polygons"]),
            lambda kind, message: self._not_answered(number, kind, message),
        )  # fmt: skip
        self._asked = number

    def _answered(self, number, polygons):
        if number == self._asked:
            self._asked = None
            self._show_answers(polygons)

    def _not_answered(self, number, kind, message):
        if number == self._asked:
            self._asked = None
            if kind not in ("Cancelled", "EngineGone"):
                self.dock.object_state.setText(message)

    def _show_answers(self, polygons, chosen=0):
        self.answers, self.chosen = polygons, chosen
        found = [p for p in polygons if p["geometry"] is not None]
        self.dock.show_readings([p["score"] for p in found] if len(found) > 1 else [], chosen)
        if not polygons:
            self.outlines.draft(None, None)
            self.dock.object_state.setText("")
            return
        best = polygons[chosen]
        self.outlines.draft(as_geometry(best["geometry"]), self.crs)
        self.dock.object_state.setText(describe(best))

    def _choose(self, number):
        if number < len(self.answers):
            self._show_answers(self.answers, number)

    def _shape(self):
        dock = self.dock
        simplify = dock.simplify.value()
        return {
            "min_area_m2": dock.min_area.value(),
            "simplify_m": simplify if simplify > 0 else None,
        }

    def _vectorize(self):
        """Draw the kept masks anew, as the outline's controls say, without decoding."""
        masks = [polygon["mask"] for polygon in self.answers]
        if not masks or self.scene is None:
            return
        chosen = self.chosen
        self.engine.ask(
            "vectorize", {"masks": masks, **self._shape()},
            lambda answer: self._show_answers(answer["polygons"], chosen),
            lambda _kind, message: self.dock.object_state.setText(message),
        )  # fmt: skip

    # Under the mouse

    def _hover(self, x, y):
        """Ask what a click here would give: one question under way, the newest next, no queue."""
        self._hover_next = (x, y)
        if self._hovering is None and self.scene is not None:
            self._ask_hover()

    def _ask_hover(self):
        (x, y), self._hover_next = self._hover_next, None
        if len(self.draft):
            return  # the draft's own outline is what counts now
        draft = Draft(self._canvas_crs()).with_point(x, y, 1)
        self._hovering = self.engine.ask(
            "preview",
            {
                "scene": self.scene, "prompt": draft.request("hover"), "crs": draft.crs,
                "encode": self._quick, **self._shape(),
            },
            self._hovered, lambda _kind, _message: self._hovered(None),
        )  # fmt: skip

    def _hovered(self, answer):
        self._hovering = None
        if self._hover_next is not None and self.scene is not None:
            self._ask_hover()
        if not len(self.draft) and self._canvas.mapTool() is self.tool:
            rows = answer["polygons"] if answer else []
            self.outlines.hover(as_geometry(rows[0]["geometry"]) if rows else None, self.crs)

    def _unhover(self):
        self._hover_next = None
        self.outlines.hover(None, None)

    # Saving

    def save(self):
        """Save the draft's outline to the layer, and begin a new draft."""
        if not self.answers or self.answers[self.chosen]["geometry"] is None:
            self._warn(tr("Nothing to save yet: click on an object."))
            return
        best = self.answers[self.chosen]
        raster = self.dock.raster.currentLayer()
        values = {
            "class": self.dock.kind.currentText(),
            "score": best["score"],
            "area_m2": best["area_m2"],
            "status": best["status"],
            "model": self.dock.model.currentText(),
            "source": os.path.basename(raster.source()) if raster else None,
        }
        try:
            save(self.dock.target.currentLayer(), as_geometry(best["geometry"]), self.crs, values)
        except NotSaved as why:
            self._warn(str(why))
            return
        self.dock.target.currentLayer().triggerRepaint()
        self.clear()

    def _new_target(self):
        path, _ = QFileDialog.getSaveFileName(
            self.dock, tr("New layer of outlines"), "", "GeoPackage (*.gpkg)"
        )
        if path:
            self.create_target(path if path.lower().endswith(".gpkg") else path + ".gpkg")

    def create_target(self, path):
        """Make a GeoPackage in the raster's CRS, add it to the project and save to it."""
        crs = self.crs or self._canvas.mapSettings().destinationCrs()
        try:
            layer = new_geopackage(path, crs)
        except NotSaved as why:
            self._warn(str(why))
            return
        QgsProject.instance().addMapLayer(layer)
        self.dock.target.setLayer(layer)

    # The map

    def _canvas_crs(self):
        crs = self._canvas.mapSettings().destinationCrs()
        return crs.authid() if crs.authid() else crs.toWkt()

    def _canvas_crs_changed(self):
        """Prompts keep their place on the ground when the map's CRS changes."""
        if len(self.draft) and self.draft.crs:
            old = QgsCoordinateReferenceSystem.fromUserInput(self.draft.crs)
            new = self._canvas.mapSettings().destinationCrs()
            move = QgsCoordinateTransform(old, new, QgsProject.instance())
            moved = Draft(self._canvas_crs())
            for kind, *rest in self.draft:
                if kind == "point":
                    point = move.transform(QgsPointXY(rest[0], rest[1]))
                    moved.add_point(point.x(), point.y(), rest[2])
                else:
                    low = move.transform(QgsPointXY(rest[0], rest[1]))
                    high = move.transform(QgsPointXY(rest[2], rest[3]))
                    moved.add_box(low.x(), low.y(), high.x(), high.y())
            self.draft = moved
            self._show_marks()

    def _warn(self, text):
        self._iface.messageBar().pushMessage("geosam", text, Qgis.MessageLevel.Warning, 8)


def as_geometry(geojson):
    """A QgsGeometry of a GeoJSON polygon or multi polygon; None of None."""
    if geojson is None:
        return None
    parts = geojson["coordinates"]
    if geojson["type"] == "Polygon":
        parts = [parts]
    return QgsGeometry.fromMultiPolygonXY(
        [[[QgsPointXY(x, y) for x, y in ring] for ring in part] for part in parts]
    )


def as_geojson(geometry):
    """A GeoJSON multi polygon of a polygonal QgsGeometry."""
    geometry = QgsGeometry(geometry)
    if not QgsWkbTypes.isMultiType(geometry.wkbType()):
        geometry.convertToMultiType()
    return {
        "type": "MultiPolygon",
        "coordinates": [
            [[[point.x(), point.y()] for point in ring] for ring in part]
            for part in geometry.asMultiPolygon()
        ],
    }


def describe(polygon):
    """An outline in words: its area, its score, and what is wrong with it."""
    if polygon["geometry"] is None:
        return tr("Nothing found here ({}).").format(polygon["status"])
    words = tr("{:,.1f} m², score {:.2f}").format(polygon["area_m2"] or 0, polygon["score"] or 0)
    if polygon["status"] == "truncated":
        words += tr(". The object goes on beyond what the model saw.")
    if polygon["status"] == "clipped":
        words += tr(". Part of the prompt lies off the raster.")
    return words
