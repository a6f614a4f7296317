"""The provider of geosam's algorithms."""

import os

from qgis.core import QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from .algorithms import ALGORITHMS

ICON = os.path.join(os.path.dirname(os.path.dirname(__file__)), "icons", "geosam.svg")


class GeosamProvider(QgsProcessingProvider):
    """geosam in the Processing toolbox."""

    def id(self):
        return "geosam"

    def name(self):
        return "geosam"

    def icon(self):
        return QIcon(ICON)

    def loadAlgorithms(self):
        for algorithm in ALGORITHMS:
            self.addAlgorithm(algorithm())

    def supportedOutputVectorLayerExtensions(self):
        return ["gpkg", "fgb", "geojson", "shp", "parquet"]

    def supportsNonFileBasedOutput(self):
        return False
