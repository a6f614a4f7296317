"""Rasters behind a web server: only the blocks that are needed travel."""

import json

import numpy as np
import pytest
import rasterio
from affine import Affine

from tests.web import served
from tiles import Raster, Window, write_mosaic


@pytest.fixture
def remote(tmp_path, monkeypatch):
    """A tiled GeoTIFF of 2048 x 2048 px behind a server of byte ranges; its URL, data and tally."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("GDAL_DISABLE_READDIR_ON_OPEN", "EMPTY_DIR")  # or GDAL asks under the GIL
    data = np.random.default_rng(0).integers(0, 255, (3, 2048, 2048), np.uint8)
    profile = {
        "driver": "GTiff", "count": 3, "height": 2048, "width": 2048, "dtype": "uint8",
        "crs": "EPSG:32633", "transform": Affine(1, 0, 500_000, 0, -1, 5_000_000),
        "tiled": True, "blockxsize": 256, "blockysize": 256,
    }  # fmt: skip
    with rasterio.open(tmp_path / "a.tif", "w", **profile) as file:
        file.write(data)
    with served(tmp_path) as (url, sent):
        yield f"{url}/a.tif", data, sent


@pytest.mark.parametrize("prefix", ["", "/vsicurl/"])
def test_a_window_of_a_remote_raster_costs_a_fraction_of_it(remote, prefix):
    url, data, sent = remote
    with Raster.open(prefix + url) as raster:
        chip = raster.read(Window(700, 900, 300, 200))
    assert (chip.data == data[:, 900:1100, 700:1000]).all()
    assert 0 < sum(sent) < data.nbytes / 4


def test_a_remote_item_and_a_mosaic_of_remote_rasters_are_no_dearer(remote, tmp_path):
    url, data, sent = remote
    asset = {"href": "/a.tif", "type": "image/tiff; application=geotiff"}
    item = {"type": "Feature", "stac_version": "1.0.0", "assets": {"visual": asset}}
    names = ("item.json", "collections/c/items/i")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(item))
    items = [url.replace("a.tif", name) for name in names]
    for source in items:
        with Raster.open(source) as raster:
            assert raster.source == url
    write_mosaic(tmp_path / "all.vrt", items)
    with Raster.open(tmp_path / "all.vrt") as raster:
        chip = raster.read(Window(700, 900, 300, 200))
    assert (chip.data == data[:, 900:1100, 700:1000]).all()
    assert 0 < sum(sent) < data.nbytes / 4
