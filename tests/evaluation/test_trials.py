"""A model that answers exactly, evaluated on scenes that it gets right and wrong in known ways."""

import json

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from click.testing import CliRunner
from PIL import Image
from shapely import MultiPolygon, Polygon, box

import geosam
from geosam.cli import main
from geosam.errors import LabelError
from geosam.evaluation.report import summarize, table
from geosam.evaluation.sheet import draw_sheet
from geosam.evaluation.truth import read_manifest
from tests.fakes import FloodModel, write_raster

LEFT, TOP = 516_096, 5_160_960


def ground(xmin, ymin, xmax, ymax):
    """A box in px as a polygon on the ground."""
    return box(LEFT + xmin, TOP - ymax, LEFT + xmax, TOP - ymin)


def blocks(*places, shape=(128, 128)):
    image = np.full((3, *shape), 20, np.uint8)
    for number, (xmin, ymin, xmax, ymax) in enumerate(places):
        image[:, ymin:ymax, xmin:xmax] = 100 + 10 * number
    return image


def polygons(*shapes, **columns):
    return geopandas.GeoDataFrame(columns, geometry=list(shapes), crs="EPSG:32633")


PLACES = ((10, 10, 40, 40), (60, 20, 100, 60), (20, 70, 60, 110))


@pytest.fixture
def scene(tmp_path):
    return write_raster(tmp_path / "scene.tif", blocks(*PLACES))


def test_a_perfect_model_is_measured_as_perfect(scene):
    truth = polygons(*(ground(*place) for place in PLACES))
    evaluation = geosam.evaluate(FloodModel(), geosam.Pair(scene, truth))
    summary = summarize(evaluation)
    figures = summary["groups"][0]["figures"]
    for name in ("iou_box", "iou_click_1", "iou_click_5", "iou_best_of_three"):
        assert figures[name]["mean"] == pytest.approx(1, abs=0.02)  # corners are cut
    assert figures["noc_85"] == {"mean": 1, "low": 1, "high": 1}
    assert figures["noc_85_failed"]["mean"] == 0
    assert figures["boundary_f_1px_box"]["mean"] == 1
    assert summary["objects"] == 3
    assert summary["polygons_not_measured_or_cut"] == {}


def test_ious_are_those_of_what_the_model_takes(scene):
    """A truth of half a block: the model takes all of it, and no click beside helps but one."""
    truth = polygons(ground(60, 20, 100, 40))  # the upper half of the second block
    (trial,) = geosam.evaluate(FloodModel(), geosam.Pair(scene, truth)).trials
    assert trial.box.iou == pytest.approx(1, abs=0.03)  # the box cuts the block
    assert trial.answer(1).iou == pytest.approx(0.5, abs=0.02)
    assert trial.clicks[0][:2] == pytest.approx((80, 30), abs=10.5)
    assert [click.label for click in trial.clicks[:2]] == [1, 0]
    assert trial.clicks[1].y == pytest.approx(50, abs=1)  # in the lower half
    assert trial.answer(2).iou == 0  # the whole block has one colour: all is taken away again
    assert trial.best_of_three == pytest.approx(trial.answer(1).iou, abs=0.05)


def test_best_of_three_is_an_oracle(scene):
    """The third candidate is one pixel larger all round: the best for a truth so large."""
    truth = polygons(ground(59, 19, 101, 61))
    (trial,) = geosam.evaluate(FloodModel(), geosam.Pair(scene, truth)).trials
    assert trial.answer(1).iou == pytest.approx(40 * 40 / (42 * 42), abs=0.02)
    assert trial.best_of_three > trial.answer(1).iou + 0.05


def test_nothing_is_dropped_in_silence(tmp_path):
    image = blocks(*PLACES)
    image[:, 100:, 100:] = 0
    raster = write_raster(tmp_path / "scene.tif", image, nodata=0)
    bow_tie = Polygon([(LEFT, TOP - 9), (LEFT + 9, TOP), (LEFT + 9, TOP - 9), (LEFT, TOP)])
    shapes = [
        ground(*PLACES[0]),
        ground(-10, 60, 10, 80),  # half of it off the raster
        ground(-50, 0, -20, 30),
        ground(105, 105, 120, 120),
        ground(50, 5, 52, 7),
        bow_tie,
        None,
        shapely.Point(LEFT, TOP),
    ]
    evaluation = geosam.evaluate(FloodModel(), geosam.Pair(raster, polygons(*shapes)))
    assert evaluation.notes == {
        "cut": 1, "off the raster": 1, "no data": 1, "too small": 1, "invalid": 1, "no polygon": 2,
    }  # fmt: skip
    assert [trial.truth.row for trial in evaluation.trials] == [1, 2]
    assert evaluation.trials[1].truth.shape.bounds == (0, 60, 10, 80)
    assert "1 off the raster" in table(summarize(evaluation))


def test_an_answer_that_fails_counts_as_zero(tmp_path):
    class Blind(FloodModel):
        def _mask(self, features, prompt):
            return np.zeros((self.size, self.size), bool)

    raster = write_raster(tmp_path / "scene.tif", blocks(*PLACES))
    pair = geosam.Pair(raster, polygons(ground(*PLACES[0])))
    summary = summarize(geosam.evaluate(Blind(), pair))
    figures = summary["groups"][0]["figures"]
    assert {figures[name]["mean"] for name in ("iou_box", "iou_click_1", "iou_click_5")} == {0}
    assert (figures["noc_80"]["mean"], figures["noc_80_failed"]["mean"]) == (5, 1)
    assert summary["calibration"]["all"]["expected_calibration_error"] is None
    assert summary["calibration"]["all"]["without_score"] == 6


def test_the_crs_and_the_turn_of_the_grid_make_no_difference(tmp_path):
    turned = Affine.translation(LEFT, TOP) @ Affine.rotation(-30) @ Affine.scale(2, -2)
    raster = write_raster(tmp_path / "turned.tif", blocks(*PLACES), transform=turned)
    shapes = [shapely.transform(box(*p), lambda xy: np.array(turned @ xy.T).T) for p in PLACES]
    truth = geopandas.GeoDataFrame(geometry=shapes, crs="EPSG:32633")
    for table_ in (truth, truth.to_crs("EPSG:3857")):
        evaluation = geosam.evaluate(FloodModel(), geosam.Pair(raster, table_))
        ious = [trial.answer(1).iou for trial in evaluation.trials]
        assert ious == pytest.approx([1, 1, 1], abs=0.03)


def test_classes_come_from_a_column_or_the_pair_and_a_limit_draws_from_each(scene):
    truth = polygons(*(ground(*place) for place in PLACES), use=["barn", "barn", None])
    evaluation = geosam.evaluate(FloodModel(), geosam.Pair(scene, truth), class_column="use")
    groups = {(g["by"], g["name"]): g["objects"] for g in summarize(evaluation)["groups"]}
    assert groups[("class", "barn")] == 2
    assert groups[("class", "-")] == 1
    assert groups[("size", "small")] == 1
    assert groups[("size", "medium")] == 2
    limited = geosam.evaluate(FloodModel(), geosam.Pair(scene, truth), class_column="use", limit=1)
    assert sorted(trial.truth.kind for trial in limited.trials) == ["-", "barn"]
    assert limited.notes == {"not drawn": 1}
    with pytest.raises(LabelError, match="no column 'type'"):
        geosam.evaluate(FloodModel(), geosam.Pair(scene, truth), class_column="type")


def test_features_are_encoded_once_for_all_rounds(scene):
    model = FloodModel()
    pair = geosam.Pair(scene, polygons(*(ground(*place) for place in PLACES)))
    geosam.evaluate(model, pair)
    encoded = model.encoded
    geosam.evaluate(model, pair)
    assert model.encoded == encoded


def test_progress_reaches_its_total(scene):
    seen = []
    pair = geosam.Pair(scene, polygons(*(ground(*place) for place in PLACES)))
    geosam.evaluate(FloodModel(), pair, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(3 * n, 18) for n in range(1, 7)]


def test_a_manifest_names_pairs_relative_to_itself(scene, tmp_path):
    polygons(ground(*PLACES[0])).to_file(tmp_path / "truth.gpkg")
    manifest = tmp_path / "pairs.csv"
    manifest.write_text("raster,truth,class\nscene.tif,truth.gpkg,barn\n")
    (pair,) = read_manifest(manifest)
    assert pair == (scene, tmp_path / "truth.gpkg", "barn")
    evaluation = geosam.evaluate(FloodModel(), manifest)
    assert [trial.truth.kind for trial in evaluation.trials] == ["barn"]
    for text, message in (
        ("raster,truth\n", "no rows"),
        ("raster,polygons\na.tif,b.gpkg\n", "line 2: no truth"),
        ("raster,truth\na.tif,b.gpkg\n,b.gpkg\n", "line 3: no raster"),
    ):
        manifest.write_text(text)
        with pytest.raises(LabelError, match=message):
            read_manifest(manifest)
    with pytest.raises(LabelError, match="nowhere"):
        read_manifest(tmp_path / "nowhere.csv")


def test_truth_that_is_no_use_is_refused(scene, tmp_path):
    far = polygons(ground(1000, 1000, 1010, 1010))
    with pytest.raises(LabelError, match="none to measure on \\(1 off the raster"):
        geosam.evaluate(FloodModel(), geosam.Pair(scene, far))
    with pytest.raises(LabelError, match="no CRS"):
        geosam.evaluate(
            FloodModel(), geosam.Pair(scene, geopandas.GeoDataFrame(geometry=[box(0, 0, 1, 1)]))
        )
    with pytest.raises(LabelError, match=r"missing\.gpkg"):
        geosam.evaluate(FloodModel(), geosam.Pair(scene, tmp_path / "missing.gpkg"))


def test_the_sheet_shows_every_case_once_a_prompt(scene, tmp_path):
    shapes = [
        *(ground(*place) for place in PLACES),
        MultiPolygon([ground(5, 5, 9, 9), ground(110, 5, 126, 60)]),
    ]
    evaluation = geosam.evaluate(FloodModel(), geosam.Pair(scene, polygons(*shapes)))
    draw_sheet(evaluation, tmp_path / "cases.png")
    with Image.open(tmp_path / "cases.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape[1] == 6 * 262 + 6
    yellow = (pixels == (255, 225, 40)).all(2)
    pink = (pixels == (255, 60, 200)).all(2)
    assert yellow.any() and pink.any()
    assert [path.name for path in tmp_path.glob(".cases*")] == []


def test_the_command_prints_a_table_and_writes_what_is_asked(scene, tmp_path):
    polygons(*(ground(*place) for place in PLACES)).to_file(tmp_path / "truth.gpkg")
    words = ["evaluate", "--raster", scene, "--truth", tmp_path / "truth.gpkg"]
    words += ["--json", tmp_path / "out.json", "--picture", tmp_path / "out.png"]
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("nano-")
    assert "all" in result.output
    figures = json.loads((tmp_path / "out.json").read_text())
    assert figures["objects"] == 3
    assert (tmp_path / "out.png").exists()
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 1
    assert "exists already" in result.output
    result = CliRunner().invoke(main, ["evaluate", "--raster", str(scene)])
    assert result.exit_code == 2
