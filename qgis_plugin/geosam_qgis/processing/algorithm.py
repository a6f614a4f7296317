"""What all algorithms of the provider share."""

import os

from qgis.core import (
    QgsProcessing,
    QgsProcessingAlgorithm,
    QgsProcessingException,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsProcessingParameterVectorDestination,
)
from qgis.PyQt.QtGui import QIcon

from geosam_qgis.discovery import engine_command
from geosam_qgis.rasters import NoSource, source_of
from geosam_qgis.words import tr

from .child import run

ICONS = os.path.join(os.path.dirname(os.path.dirname(__file__)), "icons")
INPUT, OUTPUT, MODEL, STORE = "INPUT", "OUTPUT", "MODEL", "STORE"
MIN_AREA, SIMPLIFY = "MIN_AREA", "SIMPLIFY"
REAL = QgsProcessingParameterNumber.Type.Double
POLYGONS = QgsProcessing.SourceType.TypeVectorPolygon


class EngineAlgorithm(QgsProcessingAlgorithm):
    """One command of the engine.

    Subclasses give `WORDS`: its name, its title, and what it does in sentences; `initAlgorithm`;
    and `arguments`. `finish` may be given too.
    """

    WORDS = ("", "", "")

    def __init__(self):
        super().__init__()
        self._engine = None
        self._source = None

    def name(self):
        return self.WORDS[0]

    def displayName(self):
        return tr(self.WORDS[1])

    def shortHelpString(self):
        return tr(self.WORDS[2])

    def icon(self):
        return QIcon(os.path.join(ICONS, self.name() + ".svg"))

    def createInstance(self):
        return type(self)()

    def canExecute(self):
        if engine_command() is None:
            return False, tr("No engine found. Install it from the panel of geosam.")
        return True, ""

    def prepareAlgorithm(self, parameters, context, feedback):
        """Ask what only the main thread may: the layer and the settings."""
        self._engine = engine_command()
        if self._engine is None:
            raise QgsProcessingException(
                tr("No engine found. Install it from the panel of geosam.")
            )
        try:
            self._source = source_of(self.parameterAsRasterLayer(parameters, INPUT, context))
        except NoSource as error:
            raise QgsProcessingException(str(error)) from error
        return True

    def processAlgorithm(self, parameters, context, feedback):
        results = {}
        words = self.arguments(parameters, context, feedback, results)
        command = [*self._engine, "--progress-lines", self.name(), *words]
        feedback.pushCommandInfo(" ".join(command))
        said = run(command, feedback)
        return {} if feedback.isCanceled() else self.finish(said, results, feedback)

    def arguments(self, parameters, context, feedback, results):
        """The command's arguments; outputs that they name go into `results`."""
        raise NotImplementedError

    def finish(self, said, results, feedback):
        """The results, given what the command wrote to stdout."""
        return results

    # Parameters that several have

    def add_raster(self, title=None):
        self.addParameter(QgsProcessingParameterRasterLayer(INPUT, title or tr("Raster")))

    def add_model(self):
        self.addParameter(
            QgsProcessingParameterString(MODEL, tr("Model: a name or a file of weights"), "nano")
        )

    def add_store(self):
        store = QgsProcessingParameterString(
            STORE, tr("Feature store, if not beside the raster"), "", optional=True
        )
        store.setFlags(store.flags() | QgsProcessingParameterDefinition.Flag.FlagAdvanced)
        self.addParameter(store)

    def add_shape(self):
        self.addParameter(
            QgsProcessingParameterNumber(
                MIN_AREA, tr("Leave out below (square metres)"), REAL, 0, minValue=0
            )
        )
        self.addParameter(
            QgsProcessingParameterNumber(
                SIMPLIFY,
                tr("Simplify (metres); by default to a fraction of a pixel"),
                REAL,
                optional=True,
                minValue=0,
            )
        )

    def add_output(self):
        self.addParameter(QgsProcessingParameterVectorDestination(OUTPUT, tr("Polygons"), POLYGONS))

    # What they say to the engine

    def model(self, parameters, context):
        return ["--model", self.parameterAsString(parameters, MODEL, context)]

    def store(self, parameters, context, option="--store"):
        store = self.parameterAsString(parameters, STORE, context)
        return [option, store] if store else []

    def shape(self, parameters, context):
        least = self.parameterAsDouble(parameters, MIN_AREA, context)
        words = ["--min-area", str(least)]
        if parameters.get(SIMPLIFY) is not None:
            words += ["--simplify", str(self.parameterAsDouble(parameters, SIMPLIFY, context))]
        return words

    def output(self, parameters, context, results):
        path = self.parameterAsOutputLayer(parameters, OUTPUT, context)
        results[OUTPUT] = path
        return ["--mode", "replace", "--output", path]

    def vector(self, parameters, name, context, feedback):
        """The path of a file with a layer's features; a layer without a fit file is written."""
        path, layer = self.parameterAsCompatibleSourceLayerPathAndLayerName(
            parameters, name, context, ["gpkg", "geojson", "shp", "fgb"], "gpkg", feedback
        )
        return path, layer
