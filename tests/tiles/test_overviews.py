"""Coarse pixels come from overviews where these can stand for the raster, and only there."""

import numpy as np
import pytest
import rasterio

from tests.tiles.test_raster import noise, write
from tiles import Raster


def spoil_overview(path):
    """Rewrite the raster's overview with 77s, to see where pixels come from."""
    with rasterio.open(path, "r+", overview_level=0) as overview:
        overview.write(np.full((overview.count, *overview.shape), 77, overview.dtypes[0]))


@pytest.mark.parametrize(("scale", "from_overview"), [(1, 0), (2, 1), (3, 0), (4, 1), (6, 1)])
def test_coarse_pixels_come_from_an_overview_that_divides_the_scale(tmp_path, scale, from_overview):
    path = write(tmp_path / "a.tif", noise(), factors=(2,))
    spoil_overview(path)
    with Raster.open(path) as raster:
        assert raster.overviews == (2,)
        assert (raster.read(raster.window, scale=scale).data == 77).all() == from_overview
        own = raster.read(raster.window, scale=scale, overviews=False)
    path.unlink()
    with Raster.open(write(path, noise())) as raster:
        assert (own.data == raster.read(raster.window, scale=scale).data).all()


def test_overviews_keep_masks(tmp_path):
    valid = np.zeros((64, 64), bool)
    valid[:, :32] = True
    path = write(tmp_path / "a.tif", noise(3, 64, 64), valid=valid, factors=(2, 4))
    with Raster.open(path) as raster:
        for scale in (2, 4, 8):
            kept = raster.read(raster.window, scale=scale).valid
            assert kept[:, : 32 // scale].all() and not kept[:, 32 // scale :].any()


def test_an_overview_that_lost_the_mask_is_not_used(tmp_path):
    path = write(tmp_path / "a.tif", noise(1, 64, 64), factors=(2,))
    valid = np.zeros((64, 64), bool)
    valid[:, :32] = True
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(valid)
    with Raster.open(path) as raster:
        kept = raster.read(raster.window, scale=2).valid
    assert kept[:, :16].all() and not kept[:, 16:].any()


def test_a_large_raster_is_sampled_from_an_overview(tmp_path):
    path = write(tmp_path / "a.tif", noise(), factors=(2, 4))
    with Raster.open(path) as raster:
        assert raster.sample(max_px=2000)[0].shape == (2, 31 * 42)
        assert raster.sample(max_px=400)[0].shape == (2, 16 * 21)
