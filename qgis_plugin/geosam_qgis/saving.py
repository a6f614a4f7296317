"""Where outlines go: the layer, their class and its colour."""

import os

from qgis.core import QgsProject
from qgis.PyQt.QtCore import QObject, pyqtSignal
from qgis.PyQt.QtGui import QColor, QIcon, QPixmap
from qgis.PyQt.QtWidgets import QFileDialog

from .classes import (
    follows_classes,
    keep_classes,
    next_colour,
    read_classes,
    style_by_class,
)
from .fields_window import FieldsWindow
from .target import NotSaved, new_geopackage, save, save_all
from .words import tr


class Saving(QObject):
    """The part of the panel that says where an outline is saved, and as what.

    Signals:
        coloured: the colour of the class that is chosen.
        failed: nothing was saved or made; why.
    """

    coloured = pyqtSignal(QColor)
    failed = pyqtSignal(str)

    def __init__(self, dock, iface, parent=None):
        super().__init__(parent)
        self._dock = dock
        self._iface = iface
        self._classes = {}
        dock.new_target.clicked.connect(self._ask_for_file)
        dock.fields.clicked.connect(self._ask_for_fields)
        dock.kind.currentTextChanged.connect(self._class_changed)
        dock.colour.colorChanged.connect(self._colour_changed)
        dock.target.layerChanged.connect(lambda _layer: self._target_changed())
        QgsProject.instance().readProject.connect(self.read)
        QgsProject.instance().cleared.connect(self.read)
        self.crs = None  # of new layers
        self._target_changed()

    @property
    def layer(self):
        """The layer that is saved to, or None."""
        return self._dock.target.currentLayer()

    def read(self, *_):
        """Take the classes of the project."""
        self._classes = read_classes()
        box = self._dock.kind
        box.blockSignals(True)
        box.clear()
        for name, colour in self._classes.items():
            box.addItem(_swatch(colour), name)
        box.blockSignals(False)
        self._class_changed(box.currentText())

    def save(self, polygon, crs, values):
        """Save a polygon with the class that is chosen; whether it was saved."""
        layer = self.layer
        try:
            facts = {**_facts(polygon), "class": self.take_class(), **values}
            save(layer, polygon["geometry"], crs, facts)
        except NotSaved as why:
            self.failed.emit(str(why))
            return False
        self.use()
        layer.triggerRepaint()
        return True

    def save_all(self, layer, outlines, crs, refuse):
        """Save polygons, each with its values, as one step; a generator, see `target.save_all`."""
        yield from save_all(
            layer, ((p["geometry"], {**_facts(p), **values}) for p, values in outlines), crs,
            tr("Save outlines"), refuse,
        )  # fmt: skip
        self._iface.setActiveLayer(layer)
        layer.triggerRepaint()

    def take_class(self):
        """The class that is chosen; a new one is kept."""
        name = self._dock.kind.currentText().strip()
        if name and name not in self._classes:
            self._add_class(name)
        return name

    def use(self):
        """Let QGIS's own undo and edit buttons speak of the layer that is saved to."""
        if self.layer is not None and self._iface.activeLayer() is not self.layer:
            self._iface.setActiveLayer(self.layer)

    def make_layer(self, path):
        """Make a GeoPackage, add it to the project and save to it."""
        try:
            layer = new_geopackage(path, self.crs, os.path.splitext(os.path.basename(path))[0])
        except NotSaved as why:
            self.failed.emit(str(why))
            return
        style_by_class(layer, self._classes)
        QgsProject.instance().addMapLayer(layer)
        self._dock.target.setLayer(layer)
        self.use()

    def stop(self):
        """Hear no more of the project."""
        QgsProject.instance().readProject.disconnect(self.read)
        QgsProject.instance().cleared.disconnect(self.read)

    def _ask_for_file(self):
        if self.crs is None or not self.crs.isValid():
            self.failed.emit(tr("Choose a raster first: the new layer takes its CRS."))
            return
        folder = QgsProject.instance().homePath()
        path, _ = QFileDialog.getSaveFileName(
            self._dock, tr("New layer of outlines"), folder, "GeoPackage (*.gpkg)"
        )
        if path:
            self.make_layer(path if path.lower().endswith(".gpkg") else path + ".gpkg")

    def _ask_for_fields(self):
        if self.layer is not None:
            FieldsWindow(self.layer, self._dock).exec()

    def _target_changed(self):
        self._dock.fields.setEnabled(self.layer is not None)

    def _class_changed(self, name):
        self._show_swatch(name)
        colour = QColor(self._classes.get(name.strip()) or next_colour(self._classes))
        self._dock.colour.blockSignals(True)
        self._dock.colour.setColor(colour)
        self._dock.colour.blockSignals(False)
        self.coloured.emit(colour)

    def _show_swatch(self, name):
        """A typed name has the swatch of its class, or none yet."""
        box, index = self._dock.kind, self._dock.kind.findText(name.strip())
        if box.currentIndex() != index:
            edit = box.lineEdit()
            cursor = edit.cursorPosition()
            box.blockSignals(True)
            box.setCurrentIndex(index)
            box.setEditText(name)
            box.blockSignals(False)
            edit.setCursorPosition(cursor)

    def _colour_changed(self, colour):
        name = self._dock.kind.currentText().strip()
        if name in self._classes:
            self._classes[name] = colour.name()
            self._dock.kind.setItemIcon(self._dock.kind.findText(name), _swatch(colour))
            self._keep()
        self.coloured.emit(colour)

    def _add_class(self, name):
        self._classes[name] = self._dock.colour.color().name()
        self._dock.kind.addItem(_swatch(self._classes[name]), name)
        self._show_swatch(name)
        self._keep()

    def _keep(self):
        keep_classes(self._classes)
        if self.layer is not None and follows_classes(self.layer):
            style_by_class(self.layer, self._classes)


def _facts(polygon):
    return {name: polygon[name] for name in ("score", "area_m2", "status")}


def _swatch(colour):
    picture = QPixmap(14, 14)
    picture.fill(QColor(colour))
    return QIcon(picture)
