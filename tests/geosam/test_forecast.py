"""What `info` foretells: what an encode then takes."""

from pathlib import Path
from types import SimpleNamespace

import geopandas
import numpy as np
import pytest
import shapely

from geosam import forecast as encoding
from geosam.automatic import forecast as finding
from geosam.automatic.forecast import EMPTY_BYTES, INDEX_BYTES, ROW_BYTES, _loose, forecast_objects
from geosam.automatic.run import everything
from geosam.forecast import forecast
from geosam.output import write
from geosam.recipe import Stretch
from geosam.verbs import encode
from tests.fakes import FloodModel, write_raster
from tiles import Raster


class Clock:
    """A machine on which an image takes 1 s to encode, a prompt 3 s, and all else nothing."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        for module in (encoding, finding):
            monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def model(self):
        clock = self

        class Timed(FloodModel):
            def encode(self, images):
                clock.now += len(images)
                return super().encode(images)

            def decode(self, features, prompts, **how):
                clock.now += 3 * len(prompts)
                return super().decode(features, prompts, **how)

        return Timed()


def half_empty(folder):
    """Noise in the left half of a raster, nodata in the right."""
    image = np.random.default_rng(0).integers(1, 255, (3, 1000, 1600), np.uint8)
    image[..., 800:] = 0
    return write_raster(folder / "half.tif", image, nodata=0)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_a_single_tile_takes_what_it_takes(tmp_path, clock):
    path = write_raster(tmp_path / "small.tif", np.full((3, 60, 60), 9, np.uint8))
    with Raster.open(path) as raster:
        expected = forecast(clock.model(), raster, Stretch.of(raster))
    assert (sum(expected.tiles.values()), expected.seconds, expected.tile_s) == (1, 1, 1)


def test_what_is_foretold_comes_true(tmp_path, clock):
    path, model = half_empty(tmp_path), clock.model()
    with Raster.open(path) as raster:
        expected = forecast(model, raster, Stretch.of(raster))
    began = clock.now
    store = encode(model, path)
    took = clock.now - began
    size_mb = (
        sum(file.stat().st_size for file in Path(store.path).rglob("*") if file.is_file()) / 1e6
    )
    assert expected.tiles == {grid.scale: len(grid) for grid in store.grids if grid.scale >= 1}
    assert expected.seconds == pytest.approx(took, rel=0.25)
    assert expected.megabytes == pytest.approx(size_mb, rel=0.25)


def test_a_raster_without_data_costs_nothing_but_reading(tmp_path, clock):
    path = write_raster(tmp_path / "empty.tif", np.zeros((3, 300, 300), np.uint8), nodata=0)
    with Raster.open(path) as raster:
        model = clock.model()
        expected = forecast(model, raster, Stretch.of(raster))
        objects = forecast_objects(model, raster, expected)
    assert (expected.seconds, expected.megabytes) == (0, 0)
    assert [(some.objects, some.seconds) for some in objects] == [(0, 0)] * 2


def test_ground_without_objects_is_foretold_too(tmp_path, clock):
    class Blind(type(clock.model())):
        def decode(self, features, prompts, **how):
            logits, scores = super().decode(features, prompts, **how)
            return np.full_like(logits, -4), scores

    path = write_raster(tmp_path / "plain.tif", np.full((3, 100, 100), 9, np.uint8))
    with Raster.open(path) as raster:
        whole = forecast(Blind(), raster, Stretch.of(raster))
        objects = forecast_objects(Blind(), raster, whole)
    assert [some.objects for some in objects] == [0, 0]


def dotted(folder):
    """Discs of 14 px, nine a tile, in a ground of which no two neighbours are alike."""
    rows, cols = np.mgrid[:160, :256]
    ground = 1 + rows % 7 + 7 * (cols % 5)
    inside = (rows % 32 - 8) ** 2 + (cols % 32 - 8) ** 2 < 49
    image = np.where(inside, 100 + (rows // 32 * 7 + cols // 32 * 13) % 150, ground)
    image[:, :64] = 0
    return write_raster(folder / "dots.tif", image.astype(np.uint8), nodata=0)


@pytest.mark.parametrize("coverage", [False, True])
def test_what_is_foretold_of_objects_comes_true(tmp_path, clock, coverage, monkeypatch):
    monkeypatch.setattr(finding, "TRIED_S", np.inf)  # so that chance chooses no tiles
    path, model = dotted(tmp_path), clock.model()
    with Raster.open(path) as raster:
        whole = forecast(model, raster, Stretch.of(raster))
        expected = forecast_objects(model, raster, whole)[coverage]
    began = clock.now
    output = tmp_path / "objects.gpkg"
    write(everything(model, path, coverage=coverage), output)
    took = clock.now - began
    (work,) = tmp_path.glob("*.objects")
    files = [output, *(file for file in work.rglob("*") if file.is_file())]
    size = sum(file.stat().st_size for file in files)
    assert expected.seconds == pytest.approx(took, rel=0.1)
    assert expected.objects == pytest.approx(len(geopandas.read_file(output)), rel=0.25)
    assert expected.megabytes * 1e6 - EMPTY_BYTES == pytest.approx(size - EMPTY_BYTES, rel=0.25)


def test_what_the_first_prompts_take_is_not_counted_up(tmp_path, clock):
    """Whatever loads, compiles or fills caches does it once, however large the raster is."""
    path = half_empty(tmp_path)
    told = []
    for slow in (False, True):
        model = clock.model()
        with Raster.open(path) as raster:
            whole = forecast(model, raster, Stretch.of(raster))
            decode = model.decode

            def first(features, prompts, *, model=model, decode=decode, **how):
                clock.now += 10_000
                model.decode = decode
                return decode(features, prompts, **how)

            if slow:
                model.decode = first
            told.append([some.seconds for some in forecast_objects(model, raster, whole)])
    assert told[1] == pytest.approx(told[0])


def test_an_area_that_an_edge_cuts_is_half_a_row_with_all_of_its_outline(
    tmp_path, clock, monkeypatch
):
    path, model = dotted(tmp_path), clock.model()
    boxes = np.array([shapely.box(0, 0, 1, 1), shapely.box(1, 0, 2, 1)])
    told = []
    for count in (1.0, 0.5):
        painted = boxes, np.full(2, count), 0
        monkeypatch.setattr(finding, "_painted", lambda *_, painted=painted: painted)
        with Raster.open(path) as raster:
            whole = forecast(model, raster, Stretch.of(raster))
            told.append(forecast_objects(model, raster, whole)[1])
    rows = told[0].objects - told[1].objects
    assert rows * 2 == told[0].objects
    loose = 4096 / sum(len(shapely.to_wkb(box)) + ROW_BYTES for box in boxes)
    spared = 1e6 * (told[0].megabytes - told[1].megabytes)
    assert spared == pytest.approx(rows * (ROW_BYTES * loose + INDEX_BYTES), rel=0.1)


def test_rows_that_share_no_page_take_whole_ones():
    assert _loose(np.array([1000, 1000])) == 4096 / 2000
    assert _loose(np.array([3000, 3000, 1000])) == 2 * 4096 / 7000
    assert _loose(np.array([10_000])) == 3 * 4096 / 10_000
    assert _loose(np.array([], int)) == 1


def test_nothing_is_left_behind(tmp_path, clock):
    path = half_empty(tmp_path)
    model = clock.model()
    with Raster.open(path) as raster:
        forecast_objects(model, raster, forecast(model, raster, Stretch.of(raster)))
    assert [file.name for file in tmp_path.iterdir()] == ["half.tif"]
