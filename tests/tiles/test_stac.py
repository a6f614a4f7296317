"""STAC items stand for the raster among their assets."""

import json

import fsspec
import numpy as np
import pytest

from tests.fakes import write_raster
from tiles import Raster, RasterError
from tiles.stac import raster_of

COG = "image/tiff; application=geotiff; profile=cloud-optimized"


def item(assets):
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": "a", "geometry": None, "properties": {},
        "links": [], "assets": assets,
    }  # fmt: skip


ASSETS = {
    "visual": {"href": "./images/a.tif", "type": COG, "roles": ["visual"]},
    "nir": {"href": "https://example.org/nir.tif", "type": COG},
    "thumbnail": {"href": "a.png", "type": "image/png", "roles": ["thumbnail"]},
    "preview": {"href": "small.tif", "type": COG, "roles": ["overview"]},
    "tileinfo": {"href": "a.json", "type": "application/json"},
}
ONE = {key: ASSETS[key] for key in ("thumbnail", "visual", "preview", "tileinfo")}


def test_an_item_with_one_raster_is_read_like_it(tmp_path):
    (tmp_path / "images").mkdir()
    data = np.random.default_rng(0).integers(0, 255, (3, 50, 60), np.uint8)
    path = write_raster(tmp_path / "images" / "a.tif", data)
    place = tmp_path / "item.json"
    place.write_text(json.dumps(item(ONE)))
    for source in (place, f"{place}#visual"):
        with Raster.open(source) as raster:
            assert raster.source == str(path)
            assert (raster.read(raster.window).data == data).all()


def test_one_of_several_assets_is_chosen_by_name(tmp_path):
    place = tmp_path / "a#b.json"
    place.write_text(json.dumps(item(ASSETS)))
    with pytest.raises(
        RasterError, match=r"b\.json: 2 assets that are rasters \(expected one\)\. Choose among "
        r"visual, nir, as in .*b\.json#visual\.$"
    ):  # fmt: skip
        Raster.open(place)
    with pytest.raises(
        RasterError, match=r"no asset 'red' \(expected one of visual, nir, thumbnail, preview"
    ):
        Raster.open(f"{place}#red")
    assert raster_of(f"{place}#nir") == "https://example.org/nir.tif"
    assert raster_of(f"{place}#thumbnail") == str(tmp_path / "a.png")


def test_an_item_without_rasters_is_refused(tmp_path):
    place = tmp_path / "item.json"
    place.write_text(json.dumps(item({})))
    with pytest.raises(RasterError, match=r"0 assets that are rasters .*among none"):
        Raster.open(place)
    place.write_text("{")
    with pytest.raises(RasterError, match=r"^STAC item .*item\.json: .*\(expected a JSON file\)"):
        Raster.open(place)
    place.unlink()
    with pytest.raises(RasterError, match=r"^STAC item .*item\.json: .*No such file"):
        Raster.open(place)


def test_assets_without_a_type_are_told_by_their_names(tmp_path):
    place = tmp_path / "item.json"
    place.write_text(json.dumps(item({"a": {"href": "a.TIF?x=1"}, "b": {"href": "b.xml"}})))
    assert raster_of(str(place)).endswith("a.TIF?x=1")


def test_items_in_an_object_store_are_read_from_there():
    with fsspec.open("memory://bucket/items/item.json", "w") as file:
        file.write(json.dumps(item({"a": {"href": "../images/a.tif"}})))
    assert raster_of("memory://bucket/items/item.json") == "memory://bucket/images/a.tif"
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


def test_other_sources_and_other_json_are_left_alone(tmp_path):
    place = tmp_path / "collection.json"
    place.write_text(json.dumps({"type": "FeatureCollection", "features": []}))
    for source in (str(place), "a.tif", "plot#3.tif", "https://x.org/items/a.tif", "/vsis3/b/a"):
        assert raster_of(source) == source
