"""The algorithms in Processing: by qgis_process with the real engine, offscreen with scripts."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from geosam_qgis.processing.child import run
from geosam_qgis.processing.provider import GeosamProvider
from osgeo import gdal, osr
from qgis.core import (
    QgsApplication,
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsFeature,
    QgsGeometry,
    QgsPointXY,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingModelAlgorithm,
    QgsProcessingModelChildAlgorithm,
    QgsProcessingModelChildParameterSource,
    QgsProcessingModelOutput,
    QgsProcessingModelParameter,
    QgsProcessingParameterVectorLayer,
    QgsProject,
    QgsRasterLayer,
    QgsVectorFileWriter,
    QgsVectorLayer,
)

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "geosam" / "demo"
QGIS_PROCESS = shutil.which("qgis_process.bin") or shutil.which("qgis_process")
X, Y = 404220.0, 3285110.0  # in the image

# Writes its arguments to a file, as QGIS hands them over, and makes what it was asked for.
RECORDER = """
import json, sys
words = sys.argv[1:]
with open({log!r}, "w") as log:
    json.dump(words, log)
print('{{"store": "here"}}')
"""


@pytest.fixture
def image(tmp_path):
    return shutil.copy(DEMO / "OSBS_029.tif", tmp_path)


@pytest.fixture
def provider(qgis_app, qgis_processing):
    made = GeosamProvider()
    QgsApplication.processingRegistry().addProvider(made)
    yield made
    QgsApplication.processingRegistry().removeProvider(made)


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """What the engine is called with: a function that gives its arguments."""
    log, script = tmp_path / "words.json", tmp_path / "engine.py"
    script.write_text(RECORDER.format(log=str(log)))
    monkeypatch.setenv("GEOSAM_ENGINE", f"{sys.executable} {script}")
    return lambda: json.loads(log.read_text())


def points(x=X, y=Y):
    layer = QgsVectorLayer("Point?crs=EPSG:4326&field=name:string", "points", "memory")
    way = QgsCoordinateTransform(
        QgsCoordinateReferenceSystem("EPSG:32617"), layer.crs(), QgsProject.instance()
    )
    for shift in (0, 5):
        feature = QgsFeature(layer.fields())
        feature.setGeometry(QgsGeometry.fromPointXY(way.transform(QgsPointXY(x + shift, y))))
        layer.dataProvider().addFeature(feature)
    return layer


def by_qgis_process(tmp_path, *words):
    settings = tmp_path / "settings"
    ini = settings / "profiles" / "default" / "QGIS" / "QGIS3.ini"
    ini.parent.mkdir(parents=True)
    ini.write_text("[PythonPlugins]\ngeosam_qgis=true\n")
    environment = {
        **os.environ,
        "QGIS_CUSTOM_CONFIG_PATH": str(settings),
        "QGIS_PLUGINPATH": str(ROOT / "qgis_plugin"),
    }
    return subprocess.run(
        [QGIS_PROCESS, "run", *words], env=environment, capture_output=True, text=True, timeout=300
    )


def test_each_algorithm_has_its_icon_and_says_what_it_does(provider):
    algorithms = provider.algorithms()
    assert sorted(a.name() for a in algorithms) == [
        "encode", "evaluate", "everything", "segment", "vectorize",
    ]  # fmt: skip
    drawn = {a.icon().pixmap(24, 24).toImage().bits().asstring(24 * 24 * 4) for a in algorithms}
    assert len(drawn) == 5
    assert all(a.shortHelpString() for a in algorithms)


def segmented(tmp_path, image, option):
    """What qgis_process says, and the layer that it makes of the demo's prompts."""
    output = tmp_path / "trees.gpkg"
    ended = by_qgis_process(
        tmp_path, "geosam:segment", f"--INPUT={image}", f"--PROMPTS={DEMO / 'prompts.geojson'}",
        f"--OUTPUT={output}", option,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout, QgsVectorLayer(str(output), "trees", "ogr")


def test_qgis_process_segments_from_a_layer(tmp_path, image, real_engine):
    said, layer = segmented(tmp_path, image, "--SIMPLIFY=0.2")
    assert "0...10" in said and "100 - done" in said
    found = [f for f in layer.getFeatures() if f["status"] == "ok"]
    assert len(found) > 3 and layer.crs().authid() == "EPSG:32617"
    assert all(1 < f.geometry().area() < 400 for f in found)
    extent = QgsRasterLayer(image).extent().buffered(0.001)
    assert extent.contains(layer.extent())


def test_qgis_process_segments_in_tiles_round_each_prompt(tmp_path, image, real_engine):
    _, layer = segmented(tmp_path, image, "--CENTRED=true")
    tiles = {feature["tile"] for feature in layer.getFeatures() if feature["status"] == "ok"}
    places = {tuple(map(int, tile.split("/")[1:])) for tile in tiles}  # row and col of the middle
    assert len(places) > 3 and max(max(place) for place in places) > 50


def test_qgis_process_tells_what_the_engine_says(tmp_path, image, real_engine):
    ended = by_qgis_process(tmp_path, "geosam:encode", f"--INPUT={image}", "--MODEL=no-such-model")
    assert ended.returncode != 0
    assert "no-such-model" in ended.stderr and "Traceback" not in ended.stderr


def test_a_model_segments_from_a_layer_without_a_file_in_another_crs(
    tmp_path, image, provider, real_engine
):
    model = QgsProcessingModelAlgorithm("trees", "trees")
    model.addModelParameter(
        QgsProcessingParameterVectorLayer("PROMPTS"), QgsProcessingModelParameter("PROMPTS")
    )
    child = QgsProcessingModelChildAlgorithm("geosam:segment")
    child.setChildId("segment")
    fixed = QgsProcessingModelChildParameterSource.fromStaticValue
    child.addParameterSources("INPUT", [fixed(image)])
    child.addParameterSources(
        "PROMPTS", [QgsProcessingModelChildParameterSource.fromModelParameter("PROMPTS")]
    )
    output = QgsProcessingModelOutput("OUTPUT")
    output.setChildId("segment")
    output.setChildOutputName("OUTPUT")
    child.setModelOutputs({"OUTPUT": output})
    model.addChildAlgorithm(child)
    model.updateDestinationParameters()
    import processing

    layer = points()
    results = processing.run(
        model, {"PROMPTS": layer, "segment:OUTPUT": str(tmp_path / "out.gpkg")}
    )
    made = QgsVectorLayer(results["segment:OUTPUT"], "made", "ogr")
    first = next(made.getFeatures())
    assert made.featureCount() == 2 and first["status"] == "ok"
    assert first.geometry().contains(QgsPointXY(X, Y))


def label_raster(path):
    """A label raster of 60 x 40 px of half a metre with two labelled rectangles."""
    file = gdal.GetDriverByName("GTiff").Create(path, 60, 40, 1, gdal.GDT_Byte)
    file.SetGeoTransform((404220, 0.5, 0, 3285110, 0, -0.5))
    place = osr.SpatialReference()
    place.ImportFromEPSG(32617)
    file.SetProjection(place.ExportToWkt())
    labels = np.zeros((40, 60), np.uint8)
    labels[4:14, 6:26], labels[20:36, 30:50] = 1, 2
    file.GetRasterBand(1).WriteArray(labels)
    return path


@pytest.mark.parametrize("centred", [False, True])
def test_qgis_process_outlines_everything_in_a_polygon(tmp_path, image, real_engine, centred):
    area, output = tmp_path / "area.gpkg", tmp_path / "objects.gpkg"
    place = QgsGeometry.fromPointXY(QgsPointXY(404221, 3285134)).buffer(4, 8)  # some trees
    layer = QgsVectorLayer("Polygon?crs=EPSG:32617", "area", "memory")
    feature = QgsFeature()
    feature.setGeometry(place)
    layer.dataProvider().addFeature(feature)
    options = QgsVectorFileWriter.SaveVectorOptions()
    context = QgsProject.instance().transformContext()
    QgsVectorFileWriter.writeAsVectorFormatV3(layer, str(area), context, options)
    ended = by_qgis_process(
        tmp_path, "geosam:everything", f"--INPUT={image}", f"--AREA={area}", "--MAX_AREA=500",
        f"--OUTPUT={output}", f"--CENTRED={centred}",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    found = list(QgsVectorLayer(str(output), "objects", "ogr").getFeatures())
    assert found
    for feature in found:
        assert feature.geometry().intersects(place) and feature["area_m2"] <= 500
        assert feature["model"].startswith("nano-")
        row, col = map(int, feature["tile"].split("/")[1:])  # of the tile, or of its middle
        assert (min(row, col) > 20) is centred


def test_a_label_raster_is_vectorized(tmp_path, provider, real_engine):
    import processing

    labels = label_raster(str(tmp_path / "labels.tif"))
    output = str(tmp_path / "out.gpkg")
    results = processing.run(
        "geosam:vectorize", {"INPUT": labels, "MIN_AREA": 60, "OUTPUT": output}
    )
    (feature,) = QgsVectorLayer(results["OUTPUT"], "out", "ogr").getFeatures()
    assert feature.geometry().area() == pytest.approx(16 * 20 / 4, rel=0.05)
    assert feature.geometry().contains(QgsPointXY(404220 + 20, 3285110 - 14))


def test_a_model_is_evaluated_on_a_layer(tmp_path, image, provider, real_engine):
    import processing

    truth = QgsVectorLayer("Polygon?crs=EPSG:32617&field=kind:string", "truth", "memory")
    for shift, kind in ((0, "crown"), (8, "shrub")):
        feature = QgsFeature(truth.fields())
        feature.setAttributes([kind])
        feature.setGeometry(QgsGeometry.fromPointXY(QgsPointXY(X + shift, Y)).buffer(2, 8))
        truth.dataProvider().addFeature(feature)
    feedback = QgsProcessingFeedback()
    results = processing.run(
        "geosam:evaluate",
        {
            "INPUT": image, "TRUTH": truth, "CLASS": "kind",
            "FIGURES": str(tmp_path / "figures.json"), "PICTURE": str(tmp_path / "cases.png"),
        },
        feedback=feedback,
    )  # fmt: skip
    figures = json.loads(Path(results["FIGURES"]).read_text())
    assert figures["objects"] == 2 and figures["model"].startswith("nano-")
    assert "crown" in json.dumps(figures) and "shrub" in feedback.textLog()
    assert Path(results["PICTURE"]).read_bytes().startswith(b"\x89PNG")


def test_a_model_file_encodes_and_segments(tmp_path, image, real_engine):
    """The model of docs/qgis.md: the second step works in the store that the first one names."""
    output, part = tmp_path / "outlines.gpkg", tmp_path / "part.tif"
    gdal.Translate(str(part), image, srcWin=[0, 200, 160, 160])
    ended = by_qgis_process(
        tmp_path, str(ROOT / "docs" / "qgis" / "encode_and_segment.model3"), f"--raster={part}",
        f"--prompts={DEMO / 'prompts.geojson'}", f"--segment:outlines={output}",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    found = list(QgsVectorLayer(str(output), "outlines", "ogr").getFeatures())
    asked = QgsVectorLayer(str(DEMO / "prompts.geojson"), "prompts", "ogr")
    ids = {str(feature["id"]) for feature in asked.getFeatures()}
    assert {feature["id"] for feature in found} == ids
    (store,) = tmp_path.glob("*.features.zarr")
    assert f"--store {store}" in ended.stdout


def test_a_cancel_interrupts_the_engine_at_once(tmp_path, qgis_app):
    note = tmp_path / "tidied"
    script = tmp_path / "engine.py"
    script.write_text(
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # lost in the background
        "try:\n"
        "    for n in range(1000):\n"
        "        print(f'progress {n}/1000', file=sys.stderr, flush=True); time.sleep(0.01)\n"
        "except KeyboardInterrupt:\n"
        f"    pathlib.Path({str(note)!r}).touch()\n"
    )
    feedback = QgsProcessingFeedback()
    feedback.progressChanged.connect(lambda share: feedback.cancel() if share >= 2 else None)
    began = time.monotonic()
    assert run([sys.executable, str(script)], feedback) == ""
    assert time.monotonic() - began < 5  # not by the kill that follows
    assert note.exists() and 2 <= feedback.progress() < 50


def test_an_engine_that_does_not_end_when_asked_is_ended_after_a_second(qgis_app):
    lines = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "print('progress 5/10', file=sys.stderr, flush=True)\n"
        "time.sleep(60)\n"
    )
    began = []
    feedback = QgsProcessingFeedback()
    feedback.progressChanged.connect(lambda _: (began.append(time.monotonic()), feedback.cancel()))
    assert run([sys.executable, "-c", lines], feedback) == ""
    assert 0.9 < time.monotonic() - began[0] < 2


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("print('noise', file=sys.stderr); sys.exit('Error: Raster: no CRS.')", "Raster: no CRS."),
        (
            "sys.exit('Usage: geosam\\n\\nError: No such command \\'everything\\'.')",
            "too old for it",
        ),
        ("raise KeyError('fault')", "KeyError: 'fault'"),
        ("import os; print('last', file=sys.stderr, flush=True); os.abort()", "last"),
    ],
)
def test_why_it_failed_is_told(qgis_app, lines, message):
    with pytest.raises(QgsProcessingException) as raised:
        run([sys.executable, "-c", "import sys; " + lines], QgsProcessingFeedback())
    assert message in str(raised.value) and "noise" not in str(raised.value)


def test_a_program_that_is_not_there_is_told(qgis_app):
    with pytest.raises(QgsProcessingException, match="/no/such could not be started"):
        run(["/no/such"], QgsProcessingFeedback())


def test_more_output_than_a_pipe_holds_comes_whole(qgis_app):
    lines = "import sys; print('a' * 300000); print('b\\n' * 100000, file=sys.stderr)"
    assert run([sys.executable, "-c", lines], QgsProcessingFeedback()) == "a" * 300000 + "\n"


def test_each_parameter_reaches_the_engine(tmp_path, image, provider, recorded):
    import processing

    polygons = QgsVectorLayer("Polygon?crs=EPSG:32617&field=kind:string", "area", "memory")
    feature = QgsFeature(polygons.fields())
    feature.setGeometry(QgsGeometry.fromPointXY(QgsPointXY(X, Y)).buffer(5, 4))
    polygons.dataProvider().addFeature(feature)
    output = str(tmp_path / "out.gpkg")
    context = QgsProcessingContext()

    results = processing.run(
        "geosam:encode", {"INPUT": image, "STORE": "/a b.zarr"}, context=context
    )
    assert results == {"STORE": "here"}
    assert recorded() == [
        "--progress-lines", "encode", image, "--json", "--model", "nano", "--output", "/a b.zarr",
    ]  # fmt: skip

    processing.run(
        "geosam:everything",
        {
            "INPUT": image, "AREA": polygons, "MIN_AREA": 4, "MAX_AREA": 900, "COVERAGE": True,
            "REGULAR": True, "CENTRED": True, "OUTPUT": output,
        },
    )  # fmt: skip
    words = recorded()
    assert words[1:5] == ["everything", image, "--model", "nano"]
    area = words[words.index("--area") + 1]
    assert QgsVectorLayer(area, "area", "ogr").featureCount() == 1
    assert words[7:] == [
        "--min-area", "4.0", "--max-area", "900.0", "--coverage", "--regular",
        "--centred", "--mode", "replace", "--output", output,
    ]  # fmt: skip

    processing.run("geosam:vectorize", {"INPUT": image, "SIMPLIFY": 0.5, "OUTPUT": output})
    assert recorded()[1:7] == ["vectorize", image, "--min-area", "0.0", "--simplify", "0.5"]

    figures = str(tmp_path / "figures.json")
    processing.run(
        "geosam:evaluate",
        {"INPUT": image, "TRUTH": polygons, "CLASS": "kind", "LIMIT": 7, "FIGURES": figures},
    )
    words = recorded()
    assert words[:4] == ["--progress-lines", "evaluate", "--raster", image]
    assert words[6:] == [
        "--model", "nano", "--class-column", "kind", "--limit", "7", "--json", figures,
    ]  # fmt: skip


def test_without_an_engine_it_says_where_to_get_one(image, provider, monkeypatch):
    import processing

    monkeypatch.delenv("GEOSAM_ENGINE", raising=False)
    monkeypatch.setattr("geosam_qgis.discovery.COMMAND", "no-such-geosam")
    algorithm = QgsApplication.processingRegistry().algorithmById("geosam:encode")
    able, why = algorithm.canExecute()
    assert not able and "Install it" in why
    feedback = QgsProcessingFeedback()
    with pytest.raises(QgsProcessingException):
        processing.run("geosam:encode", {"INPUT": image}, feedback=feedback)
    assert "Install it" in feedback.textLog()
