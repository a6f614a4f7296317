"""What differs between QGIS 3.22 and QGIS 4, under one name."""

from qgis.core import Qgis
from qgis.PyQt import QtGui, QtWidgets
from qgis.PyQt.QtCore import QMetaType, QVariant

# Qt 6 moved it from one module to the other.
QAction = getattr(QtGui, "QAction", None) or getattr(QtWidgets, "QAction", None)

# The kinds of fields in a layer.
if Qgis.QGIS_VERSION_INT >= 33800:
    TEXT, REAL = QMetaType.Type.QString, QMetaType.Type.Double
else:
    TEXT, REAL = QVariant.String, QVariant.Double  # Qt 5
