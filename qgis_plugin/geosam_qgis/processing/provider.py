"""The provider of geosam's algorithms."""

from qgis.core import QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from .algorithm import ICONS
from .algorithms import ALGORITHMS


class GeosamProvider(QgsProcessingProvider):
    """geosam in the Processing toolbox."""

    def id(self):
        return "geosam"

    def name(self):
        return "geosam"

    def icon(self):
        return QIcon(ICONS + "/geosam.svg")

    def loadAlgorithms(self):
        for algorithm in ALGORITHMS:
            self.addAlgorithm(algorithm())

    def supportedOutputVectorLayerExtensions(self):
        return ["gpkg", "fgb", "geojson", "shp", "parquet"]

    def supportsNonFileBasedOutput(self):
        return False
