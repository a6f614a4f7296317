"""The command line, as a user types it, with the embedded model."""

import json
import re
import subprocess
import sys

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from click.testing import CliRunner
from PIL import Image

from geosam.cli import main
from geosam.registry import PUBLISHED
from geosam.verbs import encode
from tests.fakes import FloodModel, discs, write_raster
from tiles import FeatureStore


def run(*words, code=0):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def ortho(tmp_path):
    grey = discs((400, 420), (100, 120, 40), (280, 300, 60))
    grey += np.random.default_rng(0).integers(0, 8, grey.shape, np.uint8)  # as sensors have it
    return write_raster(tmp_path / "ortho.tif", np.stack([grey] * 3))


@pytest.fixture
def small(tmp_path):
    """For `info`, which outlines all objects of so small a raster."""
    grey = discs((100, 120), (50, 30, 20), (60, 90, 25))
    return write_raster(tmp_path / "small.tif", np.stack([grey] * 3))


CLICK = ("--point", 516_216, 5_160_860)


def test_every_command_has_a_help_text_with_examples():
    for words in (
        *(["demo"], ["info"], ["encode"], ["segment"], ["evaluate"], ["export"], ["import"]),
        *(
            ["vectorize"],
            ["check"],
            ["mosaic"],
            ["train"],
            ["models", "list"],
            ["models", "pull"],
            ["models", "verify"],
            ["serve"],
        ),
    ):
        text = run(*words, "--help").output
        assert "\n  Examples:\n" in text
        assert re.search(rf"^    geosam {' '.join(words)}", text, re.MULTILINE)
    for line in run("--help").output.split("Commands:")[1].splitlines():
        assert not line.endswith("...")


def test_programs_are_told_the_progress_in_lines(ortho):
    result = run("--progress-lines", "encode", ortho, "--json")
    told = [line for line in result.stderr.splitlines() if line]
    assert all(re.fullmatch(r"progress \d+/\d+", line) for line in told)
    done, total = told[-1].removeprefix("progress ").split("/")
    assert done == total and "tiles" in json.loads(result.stdout)
    assert "progress" not in run("encode", ortho).output


def test_the_demo_writes_trees_and_a_picture(tmp_path):
    for _ in range(2):  # the second time finds its features
        result = run("demo", "-o", tmp_path / "demo")
        assert result.stdout.split() == [
            str(tmp_path / "demo/trees.gpkg"), str(tmp_path / "demo/trees.png"),
        ]  # fmt: skip
    trees = geopandas.read_file(tmp_path / "demo/trees.gpkg")
    assert trees.crs == 32617
    assert len(trees) == 18
    assert set(trees["status"]) <= {"ok", "clipped"}
    assert trees["area_m2"].between(0.5, 100).all()
    with Image.open(tmp_path / "demo/trees.png") as picture:
        assert picture.size == (1024, 1024)


def test_info_says_what_a_raster_is(small):
    about = json.loads(run("info", small, "--json").stdout)
    assert about["size_px"] == [120, 100]
    assert about["crs"] == "EPSG:32633"
    assert about["pixel_m"] == pytest.approx([1, 1], rel=1e-3)
    assert about["model_bands"] == [1, 2, 3]
    assert about["tiles_by_scale"] == {"1": 1}
    assert 0 < about["encode_s"] < about["everything_s"]
    assert about["everything_mb"] > 0 and about["coverage_mb"] > 0
    assert 0 < about["everything_objects"] <= about["coverage_objects"]
    assert "size px" in run("info", small).stdout


def test_every_verb_with_a_model_says_where_it_computes_and_how(ortho, small, tmp_path):
    about = json.loads(run("info", small, "--json").stdout)
    assert (about["device"], about["precision"]) == ("cpu", "fp32")
    for words in (
        ("info", ortho), ("encode", ortho), ("segment", ortho, *CLICK),
        ("check", encode(FloodModel(), ortho, tmp_path / "f.zarr").path, "--raster", ortho),
    ):  # fmt: skip
        for more, found in (
            (("--device", "tpu"), "Device 'tpu': not known (expected auto, cpu, cuda or cuda:N)"),
            (("--device", "cuda:99"), "Device 'cuda:99': not there"),
        ):
            assert found in run(*words, *more, code=1).stderr
        run(*words, "--precision", "fp8", code=2)


def test_encode_then_segment_the_store(ortho, tmp_path):
    store = tmp_path / "ortho.features.zarr"
    made = json.loads(run("encode", ortho, "-o", store, "--json").stdout)
    assert made == {"store": str(store), "tiles": {"1": "1 of 1"}}
    result = run("segment", store, *CLICK, "-o", tmp_path / "out.gpkg")
    assert result.stdout == f"{tmp_path / 'out.gpkg'}\n"
    assert result.stderr == "1 prompts: 1 ok\n"
    (polygon,) = geopandas.read_file(tmp_path / "out.gpkg").geometry
    assert polygon.area == pytest.approx(np.pi * 40**2, rel=0.1)
    assert polygon.centroid.distance(shapely.Point(516_216, 5_160_860)) < 5


def test_centred_tiles_are_not_kept(ortho, tmp_path):
    store = tmp_path / "a.zarr"
    run("segment", ortho, *CLICK, "--centred", "--store", store, "-o", tmp_path / "out.gpkg")
    (polygon,) = geopandas.read_file(tmp_path / "out.gpkg").geometry
    assert polygon.area == pytest.approx(np.pi * 40**2, rel=0.1)
    assert polygon.centroid.distance(shapely.Point(516_216, 5_160_860)) < 5
    run("everything", ortho, "--centred", "--store", store, "-o", tmp_path / "all.gpkg")
    found = geopandas.read_file(tmp_path / "all.gpkg").geometry
    ious = found.intersection(polygon).area / found.union(polygon).area
    assert (ious > 0.9).sum() == 1
    opened = FeatureStore.open(store)
    assert all(len(opened.missing(grid.scale)) == len(grid) for grid in opened.grids)


def test_segment_prints_rfc_7946_geojson_and_draws(ortho, tmp_path):
    picture = tmp_path / "p.png"
    result = run("segment", ortho, *CLICK, "--preview", picture)
    (feature,) = json.loads(result.stdout)["features"]
    centre = shapely.from_geojson(json.dumps(feature["geometry"])).centroid
    assert (round(centre.x, 2), round(centre.y, 2)) == (15.21, 46.6)
    with Image.open(picture) as image:
        assert max(image.size) >= 1024


def test_prompts_come_from_a_file_in_its_own_crs(ortho, tmp_path):
    points = geopandas.GeoDataFrame(
        {"id": ["a", "b"]},
        geometry=geopandas.points_from_xy([516_216, 516_396], [5_160_860, 5_160_680]),
        crs=32633,
    )
    points.to_crs(4326).to_file(tmp_path / "p.gpkg")
    run("segment", ortho, tmp_path / "p.gpkg", "-o", tmp_path / "out.geojson")
    assert geopandas.read_file(tmp_path / "out.geojson")["id"].tolist() == ["a", "b"]
    conflict = run("segment", ortho, tmp_path / "p.gpkg", "--crs", "EPSG:3857", code=1)
    assert re.search(r"EPSG:3857.*EPSG:4326", conflict.stderr)


def test_nothing_is_overwritten_unless_asked(ortho, tmp_path):
    out = tmp_path / "out.gpkg"
    out.write_text("mine")
    refused = run("segment", ortho, *CLICK, "-o", out, code=1)
    assert "exists already" in refused.stderr
    assert out.read_text() == "mine"
    out.unlink()
    for mode, rows in (("create", 1), ("append", 2), ("replace", 1)):
        run("segment", ortho, *CLICK, "-o", out, "--mode", mode)
        assert len(geopandas.read_file(out)) == rows


def test_the_command_line_s_faults_exit_with_2(ortho, tmp_path):
    run("segment", ortho, code=2)
    run("segment", ortho, tmp_path / "p.gpkg", *CLICK, code=2)
    run("segment", ortho, *CLICK, "--bands", "red", code=2)
    run("nonsense", code=2)


def test_the_data_s_faults_exit_with_1_and_one_line(ortho, tmp_path):
    for words, found in (
        (("info", tmp_path / "missing.tif"), "cannot be opened"),
        (("segment", ortho, tmp_path / "missing.gpkg"), "expected a readable vector layer"),
        (("segment", ortho, *CLICK, "--bands", "9"), "bands (9,)"),
        (("segment", ortho, *CLICK, "--model", "vit_x"), "no such model"),
        (("segment", ortho, *CLICK, "-o", tmp_path / "out.xyz"), "expected one of .gpkg"),
        (("check", tmp_path / "missing.zarr"), "missing.zarr"),
    ):
        result = run(*words, code=1)
        assert result.stdout == ""
        assert result.stderr.startswith("Error: ")
        assert found in result.stderr
        assert result.stderr.count("\n") == 1


def test_check_finds_and_repairs_a_damaged_tile(ortho, tmp_path):
    store = tmp_path / "f.zarr"
    run("encode", ortho, "-o", store)
    assert json.loads(run("check", store, "--raster", ortho, "--json").stdout)["damaged"] == []
    (chunk,) = (store / "features").rglob("c.0.0*")
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 0xFF
    chunk.write_bytes(data)
    assert "1 damaged tiles" in run("check", store, code=1).stderr
    assert "damaged" in run("segment", store, *CLICK, code=1).stderr
    report = json.loads(run("check", store, "--raster", ortho, "--repair", "--json").stdout)
    assert report["damaged"] == ["tile (0, 0) at scale 1"]
    assert FeatureStore.open(store).verify() == []
    other = write_raster(tmp_path / "other.tif", np.stack([discs((400, 420))] * 3))
    assert "raster" in run("check", store, "--raster", other, code=1).stderr


def test_vectorize_labels(tmp_path):
    labels = discs((200, 200), (50, 50, 20), (120, 120, 30)).astype(np.int32)
    labels[labels == 20] = 0
    path = write_raster(tmp_path / "labels.tif", labels)
    run("vectorize", path, "-o", tmp_path / "out.gpkg")
    table = geopandas.read_file(tmp_path / "out.gpkg")
    assert table["label"].tolist() == [200, 201]
    with rasterio.open(path) as file:
        count = int((file.read(1) == 201).sum())
    assert table.geometry[1].area == pytest.approx(count)


def test_models_are_listed(tmp_path, monkeypatch):
    monkeypatch.setenv("GEOSAM_CACHE", str(tmp_path))
    nano, *others = json.loads(run("models", "list", "--json").stdout)
    assert [row["name"] for row in others] == list(PUBLISHED)
    assert {row["weights"] for row in others} == {"not fetched"}
    assert nano["name"] == "nano"
    assert re.fullmatch(r"nano-[0-9a-f]{8}", nano["id"])


def test_importing_geosam_is_quick_and_free_of_torch():
    code = (
        "import sys, time; t = time.perf_counter(); import geosam; "
        "print(time.perf_counter() - t); "
        "heavy = {'torch', 'rasterio', 'geopandas'} & set(sys.modules); assert not heavy, heavy; "
        "geosam.segment; assert 'torch' not in sys.modules"
    )
    times = [
        float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
        for _ in range(3)
    ]
    assert min(times) < 0.5


def test_every_public_name_is_there_and_listed():
    import geosam

    assert sorted(geosam.__all__) == geosam.__all__
    for name in geosam.__all__:
        assert callable(getattr(geosam, name))
    with pytest.raises(AttributeError, match="nonsense"):
        geosam.nonsense  # noqa: B018
