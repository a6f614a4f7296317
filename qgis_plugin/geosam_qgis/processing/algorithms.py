"""The algorithms: encode, segment, everything, vectorize, evaluate."""

import json

from qgis.core import (
    QgsProcessing,
    QgsProcessingException,
    QgsProcessingOutputString,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterNumber,
    QgsProviderRegistry,
)

from geosam_qgis.words import tr

from .algorithm import POLYGONS, REAL, STORE, EngineAlgorithm

PROMPTS, AREA, TRUTH, CLASS = "PROMPTS", "AREA", "TRUTH", "CLASS"
MULTIMASK, CENTRED, MAX_AREA, COVERAGE, REGULAR = (
    "MULTIMASK",
    "CENTRED",
    "MAX_AREA",
    "COVERAGE",
    "REGULAR",
)
LIMIT, PICTURE, FIGURES = "LIMIT", "PICTURE", "FIGURES"


class Encode(EngineAlgorithm):
    """A raster's features, made once and kept."""

    WORDS = (
        "encode",
        "Encode a raster",
        "Encodes a raster once, so that outlines come at once afterwards. What is done is kept: "
        "run it again after a cancel and it goes on.",
    )

    def initAlgorithm(self, _configuration=None):
        self.add_raster()
        self.add_model()
        self.add_store()
        self.addOutput(QgsProcessingOutputString(STORE, tr("Feature store")))

    def arguments(self, parameters, context, feedback, results):
        words = [self._source, "--json", *self.model(parameters, context)]
        return words + self.store(parameters, context, "--output")

    def finish(self, said, results, feedback):
        return {STORE: json.loads(said)["store"]}


class Segment(EngineAlgorithm):
    """The objects of a layer of prompts."""

    WORDS = (
        "segment",
        "Segment from a layer of points, boxes or polygons",
        "Outlines the object of each feature: a point on it, a box or polygon round it, in any "
        "CRS. Points of one object share a value in the field id; a label of 0 marks points that "
        "are not on it. Of a layer with a selection, choose whether only that is used.",
    )

    def initAlgorithm(self, _configuration=None):
        self.add_raster()
        self.addParameter(
            QgsProcessingParameterFeatureSource(
                PROMPTS,
                tr("Points, boxes or polygons"),
                [QgsProcessing.SourceType.TypeVectorAnyGeometry],
            )
        )
        self.add_model()
        self.addParameter(
            QgsProcessingParameterBoolean(MULTIMASK, tr("Three readings of each lone point"), False)
        )
        self.addParameter(_centred())
        self.add_shape()
        self.add_store()
        self.add_output()

    def arguments(self, parameters, context, feedback, results):
        path, layer = self.vector(parameters, PROMPTS, context, feedback)
        words = [self._source, path, *(["--layer", layer] if layer else [])]
        for name, option in ((MULTIMASK, "--multimask"), (CENTRED, "--centred")):
            if self.parameterAsBool(parameters, name, context):
                words.append(option)
        return [
            *words, *self.model(parameters, context), *self.shape(parameters, context),
            *self.store(parameters, context), *self.output(parameters, context, results),
        ]  # fmt: skip


class Everything(EngineAlgorithm):
    """All objects of a raster."""

    WORDS = (
        "everything",
        "Segment everything",
        "Outlines every object of a raster, or of the polygons of a layer. Run it again after a "
        "cancel and it goes on.",
    )

    def initAlgorithm(self, _configuration=None):
        self.add_raster()
        self.addParameter(
            QgsProcessingParameterFeatureSource(
                AREA, tr("Only within these polygons"), [POLYGONS], optional=True
            )
        )
        self.add_model()
        self.addParameter(
            QgsProcessingParameterNumber(
                "MIN_AREA", tr("Leave out below (square metres)"), REAL, 0, minValue=0
            )
        )
        self.addParameter(
            QgsProcessingParameterNumber(
                MAX_AREA, tr("Leave out above (square metres)"), REAL, optional=True, minValue=0
            )
        )
        self.addParameter(
            QgsProcessingParameterBoolean(
                COVERAGE, tr("Share out all ground, without overlaps"), False
            )
        )
        self.addParameter(
            QgsProcessingParameterBoolean(REGULAR, tr("Right angles, for buildings"), False)
        )
        self.addParameter(_centred())
        self.add_store()
        self.add_output()

    def arguments(self, parameters, context, feedback, results):
        words = [self._source, *self.model(parameters, context)]
        if parameters.get(AREA) is not None:
            path, layer = self.vector(parameters, AREA, context, feedback)
            words += ["--area", _whole_file(path, layer)]
        words += ["--min-area", str(self.parameterAsDouble(parameters, "MIN_AREA", context))]
        if parameters.get(MAX_AREA) is not None:
            words += ["--max-area", str(self.parameterAsDouble(parameters, MAX_AREA, context))]
        options = ((COVERAGE, "--coverage"), (REGULAR, "--regular"), (CENTRED, "--centred"))
        for name, option in options:
            if self.parameterAsBool(parameters, name, context):
                words.append(option)
        words += self.store(parameters, context)
        return words + self.output(parameters, context, results)


class Vectorize(EngineAlgorithm):
    """The polygons of a label raster."""

    WORDS = (
        "vectorize",
        "Vectorize a label raster",
        "Turns a raster of labels or a mask into smooth polygons: one a label, or one a part if "
        "there is but one label.",
    )

    def initAlgorithm(self, _configuration=None):
        self.add_raster(tr("Label raster"))
        self.add_shape()
        self.add_output()

    def arguments(self, parameters, context, feedback, results):
        words = [self._source, *self.shape(parameters, context)]
        return words + self.output(parameters, context, results)


class Evaluate(EngineAlgorithm):
    """How well a model does on true outlines."""

    WORDS = (
        "evaluate",
        "Evaluate a model on true outlines",
        "Prompts a model with the box of each true polygon and with clicks on it, and compares "
        "what comes with the truth. The figures are in the log and, as JSON, in a file.",
    )

    def initAlgorithm(self, _configuration=None):
        self.add_raster()
        self.addParameter(
            QgsProcessingParameterFeatureSource(TRUTH, tr("True outlines"), [POLYGONS])
        )
        self.addParameter(
            QgsProcessingParameterField(CLASS, tr("Field of the class"), None, TRUTH, optional=True)
        )
        self.addParameter(
            QgsProcessingParameterNumber(
                LIMIT, tr("At most so many objects of a class"), optional=True, minValue=1
            )
        )
        self.add_model()
        self.addParameter(
            QgsProcessingParameterFileDestination(FIGURES, tr("Figures"), "JSON (*.json)")
        )
        self.addParameter(
            QgsProcessingParameterFileDestination(
                PICTURE,
                tr("Picture of cases"),
                "PNG (*.png)",
                optional=True,
                createByDefault=False,
            )
        )

    def arguments(self, parameters, context, feedback, results):
        path, layer = self.vector(parameters, TRUTH, context, feedback)
        words = ["--raster", self._source, "--truth", _whole_file(path, layer)]
        words += self.model(parameters, context)
        kind = self.parameterAsString(parameters, CLASS, context)
        words += ["--class-column", kind] if kind else []
        if parameters.get(LIMIT) is not None:
            words += ["--limit", str(self.parameterAsInt(parameters, LIMIT, context))]
        for name, option in ((FIGURES, "--json"), (PICTURE, "--picture")):
            target = self.parameterAsFileOutput(parameters, name, context)
            if target:
                words += [option, target]
                results[name] = target
        return words

    def finish(self, said, results, feedback):
        feedback.pushInfo(said)
        return results


def _centred():
    """Whether tiles lie where prompts or the image say, instead of on a grid."""
    words = tr("The same wherever the raster starts, which takes longer")
    return QgsProcessingParameterBoolean(CENTRED, words, False)


def _whole_file(path, layer):
    """The path of a file, whose only layer the engine reads.

    Raises:
        QgsProcessingException: it has several, and the engine cannot be told which.
    """
    found = QgsProviderRegistry.instance().querySublayers(path)
    if layer and len({part.name() for part in found}) > 1:
        raise QgsProcessingException(
            tr("{} has several layers. Export {} to a file of its own.").format(path, layer)
        )
    return path


ALGORITHMS = (Encode, Segment, Everything, Vectorize, Evaluate)
