"""What `info` foretells: what an encode then takes."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from geosam import forecast as module
from geosam.forecast import forecast
from geosam.recipe import Stretch
from geosam.verbs import encode
from tests.fakes import FloodModel, write_raster
from tiles import Raster


class Clock:
    """A machine on which an image takes a second to encode, and all else nothing."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def model(self):
        clock = self

        class Timed(FloodModel):
            def encode(self, images):
                clock.now += len(images)
                return super().encode(images)

        return Timed()


def half_empty(folder):
    """Noise in the left half of a raster, nodata in the right."""
    image = np.random.default_rng(0).integers(1, 255, (3, 1000, 1600), np.uint8)
    image[..., 800:] = 0
    return write_raster(folder / "half.tif", image, nodata=0)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


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
        expected = forecast(clock.model(), raster, Stretch.of(raster))
    assert (expected.seconds, expected.megabytes) == (0, 0)


def test_nothing_is_left_behind(tmp_path, clock):
    path = half_empty(tmp_path)
    with Raster.open(path) as raster:
        forecast(clock.model(), raster, Stretch.of(raster))
    assert [file.name for file in tmp_path.iterdir()] == ["half.tif"]
