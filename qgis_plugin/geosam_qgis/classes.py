"""Classes with colours: kept in the project, shown in the layer that is saved to."""

import json

from qgis.core import (
    QgsCategorizedSymbolRenderer,
    QgsFillSymbol,
    QgsProject,
    QgsRendererCategory,
)
from qgis.PyQt.QtGui import QColor

from .words import tr

COLOURS = (
    "#ff7f0e", "#2ca02c", "#d62728", "#bcbd22", "#1f77b4", "#9467bd", "#8c564b", "#e377c2",
)  # fmt: skip
SCOPE, KEY = "geosam", "classes"
OURS = "geosam/classes"  # on layers whose style follows the classes


def read_classes():
    """The project's classes, {name: colour}; some to begin with if it has none."""
    text, found = QgsProject.instance().readEntry(SCOPE, KEY)
    if found and text:
        return json.loads(text)
    names = (tr("object"), tr("tree"), tr("building"), tr("field"), tr("water"))
    return dict(zip(names, COLOURS))


def keep_classes(classes):
    """Keep classes in the project."""
    QgsProject.instance().writeEntry(SCOPE, KEY, json.dumps(classes))


def next_colour(classes):
    """A colour that few classes have."""
    return COLOURS[len(classes) % len(COLOURS)]


def style_by_class(layer, classes, field="class"):
    """Show a layer's polygons in their classes' colours."""
    categories = [
        QgsRendererCategory(name, _symbol(colour), name) for name, colour in classes.items()
    ]
    categories.append(QgsRendererCategory("", _symbol("#808080"), tr("other")))
    layer.setRenderer(QgsCategorizedSymbolRenderer(field, categories))
    layer.setCustomProperty(OURS, True)
    layer.emitStyleChanged()
    layer.triggerRepaint()


def follows_classes(layer):
    """Whether a layer's style is ours to change."""
    return bool(layer.customProperty(OURS, False))


def _symbol(colour):
    fill = QColor(colour)
    return QgsFillSymbol.createSimple(
        {
            "color": f"{fill.red()},{fill.green()},{fill.blue()},70",
            "outline_color": fill.name(),
            "outline_width": "0.5",
        }
    )
