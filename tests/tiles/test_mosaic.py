"""Many rasters as one: the pixels, nodata and refusals of a VRT that geosam writes itself."""

import shutil
from xml.etree.ElementTree import parse

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp, Resampling

from tests.fakes import NORTH_UP, write_raster
from tiles import Raster, RasterError, write_mosaic

WHOLE = np.random.default_rng(0).integers(1, 255, (3, 220, 300), np.uint8)


def cut(folder, name, rows, cols, data=WHOLE, **options):
    """A part of an image as a raster of its own, where it lies."""
    part = data[..., slice(*rows), slice(*cols)]
    transform = options.pop("transform", NORTH_UP)
    place = transform @ Affine.translation(cols[0], rows[0])
    return write_raster(folder / name, part, transform=place, **options)


def four(folder, **options):
    """Four rasters that overlap by 20 px and cover the image."""
    spans = [((0, 120), (0, 160)), ((0, 120), (140, 300)), ((100, 220), (0, 160)),
             ((100, 220), (140, 300))]  # fmt: skip
    return [cut(folder, f"{n}.tif", *span, **options) for n, span in enumerate(spans)]


TURNED = NORTH_UP @ Affine.rotation(30) @ Affine.scale(0.3, 0.3)


@pytest.mark.parametrize("transform", [NORTH_UP, TURNED, NORTH_UP @ Affine.scale(1, -1)])
def test_four_rasters_are_the_one_that_they_were_cut_from(tmp_path, transform):
    paths = four(tmp_path, transform=transform)
    write_raster(tmp_path / "whole.tif", WHOLE, transform=transform)
    write_mosaic(tmp_path / "all.vrt", paths)
    with Raster.open(tmp_path / "all.vrt") as ours, Raster.open(tmp_path / "whole.tif") as whole:
        assert ours.frame.shape == whole.frame.shape
        assert ours.frame.crs == whole.frame.crs
        assert tuple(ours.frame.transform) == pytest.approx(tuple(whole.frame.transform), rel=1e-15)
        assert ours.colors == whole.colors and ours.dtype == whole.dtype
        one, other = ours.read(ours.window), whole.read(whole.window)
        assert (one.data == other.data).all() and one.valid.all()
    assert {p.name for p in tmp_path.glob(".*")} == set()


def test_the_folder_can_be_moved(tmp_path):
    (tmp_path / "one" / "parts").mkdir(parents=True)
    write_mosaic(tmp_path / "one" / "all.vrt", four(tmp_path / "one" / "parts"))
    shutil.move(tmp_path / "one", tmp_path / "two")
    with Raster.open(tmp_path / "two" / "all.vrt") as raster:
        assert (raster.read(raster.window).data == WHOLE).all()


def test_ground_that_no_raster_covers_has_no_data(tmp_path):
    first, _, _, last = four(tmp_path)
    write_mosaic(tmp_path / "all.vrt", [first, last])
    covered = np.zeros((220, 300), bool)
    covered[:120, :160] = covered[100:, 140:] = True
    with Raster.open(tmp_path / "all.vrt") as raster:
        chip = raster.read(raster.window)
    assert (chip.valid == covered).all()
    assert (chip.data[:, covered] == WHOLE[:, covered]).all()


def test_the_later_raster_is_seen_where_it_has_data(tmp_path):
    under = cut(tmp_path, "under.tif", (0, 100), (0, 100), np.full((3, 220, 300), 7, np.uint8))
    over = cut(tmp_path, "over.tif", (50, 150), (50, 150))
    for order, seen in (((under, over), WHOLE[:, 60, 60]), ((over, under), [7, 7, 7])):
        path = tmp_path / f"{order[0].stem}.vrt"
        write_mosaic(path, order)
        with Raster.open(path) as raster:
            assert raster.read(raster.window).data[:, 60, 60].tolist() == list(seen)


@pytest.mark.parametrize("kind", ["nodata", "NaN", "alpha", "mask"])
def test_what_lacks_data_hides_nothing(tmp_path, kind):
    """The second raster overlaps the first with a half that lacks data."""
    data = WHOLE.astype(np.float32) if kind == "NaN" else WHOLE
    lacking = data.copy()
    lacking[:, :, 50:100] = {"NaN": np.nan, "nodata": 0}.get(kind, 9)
    has = np.ones(data.shape[1:], np.uint8) * 255
    has_some = has.copy()
    has_some[:, 50:100] = 0
    options = {"nodata": 0} if kind == "nodata" else {"nodata": np.nan} if kind == "NaN" else {}
    paths = []
    for name, own, valid, cols in (("a", data, has, (0, 100)), ("b", lacking, has_some, (50, 150))):
        bands = np.concatenate([own, valid[None]]) if kind == "alpha" else own
        path = cut(tmp_path, f"{name}.tif", (0, 100), cols, bands, **options)
        with rasterio.open(path, "r+") as file:
            if kind == "alpha":
                colors = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
                file.colorinterp = colors
            if kind == "mask" and name == "b":
                file.write_mask(valid[:100, slice(*cols)])
        paths.append(path)
    write_mosaic(tmp_path / "all.vrt", paths)
    with Raster.open(tmp_path / "all.vrt") as raster:
        chip = raster.read(raster.window)
    assert raster.count == 3
    assert chip.valid.all()
    assert (chip.data == data[:, :100, :150]).all()
    write_mosaic(tmp_path / "hole.vrt", paths[1:])
    with Raster.open(tmp_path / "hole.vrt") as raster:
        chip = raster.read(raster.window)
    assert not chip.valid[:, :50].any() and chip.valid[:, 50:].all()


@pytest.mark.parametrize("kind", ["plain", "nodata", "alpha", "mask"])
def test_overviews_of_the_rasters_serve_the_mosaic(tmp_path, kind):
    """With a hole across all four: a coarse read is to the last bit that of one raster."""
    valid = np.full((1, *WHOLE.shape[1:]), 255, np.uint8)
    if kind != "plain":
        valid[:, 101:150, 133:190] = 0
    data = np.where(valid > 0, WHOLE, 0)
    bands = np.concatenate([data, valid]) if kind == "alpha" else data
    options = {"nodata": 0} if kind == "nodata" else {}

    def made(name, rows, cols):
        path = cut(tmp_path, name, rows, cols, bands, **options)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
            if kind == "alpha":
                colors = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
                file.colorinterp = colors
            if kind == "mask":
                file.write_mask(valid[0, slice(*rows), slice(*cols)])
        with rasterio.open(path, "r+") as file:
            file.build_overviews([2, 4], Resampling.average)
        return path

    spans = [((0, 128), (0, 160)), ((0, 128), (160, 300)), ((128, 220), (0, 160)),
             ((128, 220), (160, 300))]  # fmt: skip
    write_mosaic(tmp_path / "all.vrt", [made(f"{n}.tif", *span) for n, span in enumerate(spans)])
    made("whole.tif", (0, 220), (0, 300))
    with Raster.open(tmp_path / "all.vrt") as ours, Raster.open(tmp_path / "whole.tif") as whole:
        assert ours.overviews == whole.overviews == (2, 4)
        levels = [[step for step, _ in raster._levels()] for raster in (ours, whole)]
        assert levels[0] == levels[1] == [1, 2, 4]
        for scale in (1, 2, 4, 8):
            one, other = (raster.read(raster.window, None, scale) for raster in (ours, whole))
            assert (one.valid == other.valid).all()
            assert (one.data[:, one.valid] == other.data[:, one.valid]).all()


def test_overviews_serve_no_mosaic_with_other_pixels_than_theirs(tmp_path):
    """The second raster starts at 142, which is no multiple of 4; 8 does not divide 220."""
    for last, start, served in ((300, 142, (2,)), (300, 144, (2, 4)), (304, 144, (2, 4))):
        folder = tmp_path / f"{last}-{start}"
        folder.mkdir()
        data = np.zeros((3, 220, last), np.uint8)
        columns = ((0, 160), (start, last))
        paths = [cut(folder, f"{c[0]}.tif", (0, 220), c, data) for c in columns]
        for path in paths:
            with rasterio.open(path, "r+") as file:
                file.build_overviews([2, 4, 8], Resampling.average)
        write_mosaic(folder / "all.vrt", paths)
        with Raster.open(folder / "all.vrt") as raster:
            assert raster.overviews == served


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"crs": "EPSG:32634"}, r"CRS EPSG:32634 \(expected EPSG:32633, as of .*0\.tif\)\. Warp"),
        ({"data": WHOLE[:1]}, r"bands uint8 \(expected uint8, uint8, uint8, as of"),
        ({"data": WHOLE.astype(np.uint16)}, r"bands uint16, uint16, uint16 \(expected uint8"),
        ({"nodata": 0}, r"nodata 0\.0, 0\.0, 0\.0 \(expected None"),
        ({"transform": NORTH_UP @ Affine.scale(1.001, 1.001)}, r"pixels of another size.*1\.001"),
        ({"transform": NORTH_UP @ Affine.rotation(0.1)}, r"pixels of another size or turn"),
        ({"transform": NORTH_UP @ Affine.translation(0.5, 0)}, r"0\.50 px off the first raster's"),
        ({"crs": None}, r"no CRS"),
    ],
)
def test_rasters_that_are_not_on_one_grid_are_named(tmp_path, change, said):
    first, _, _, last = four(tmp_path)
    other = cut(tmp_path, "other.tif", (0, 120), (140, 300), **change)
    with pytest.raises(RasterError, match=rf"^Raster .*other\.tif: {said}"):
        write_mosaic(tmp_path / "all.vrt", [first, other, last])
    assert not (tmp_path / "all.vrt").exists()


def test_palettes_are_refused_and_nothing_is_overwritten(tmp_path):
    path = cut(tmp_path, "a.tif", (0, 100), (0, 100), WHOLE[0])
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {1: (1, 2, 3, 255)})
    with pytest.raises(RasterError, match=r"a\.tif: colours from a palette.*-expand rgb"):
        write_mosaic(tmp_path / "all.vrt", [path])
    (tmp_path / "all.vrt").write_text("mine")
    with pytest.raises(RasterError, match=r"all\.vrt: exists already"):
        write_mosaic(tmp_path / "all.vrt", four(tmp_path))
    assert (tmp_path / "all.vrt").read_text() == "mine"


def test_the_sources_are_named_from_the_folder_and_described(tmp_path):
    paths = four(tmp_path)[::3]  # which leave ground without data
    with rasterio.open(paths[0], "r+") as file:
        file.descriptions = ("red edge", None, None)
    write_mosaic(tmp_path / "all.vrt", paths)
    names = parse(tmp_path / "all.vrt").iter("SourceFilename")
    assert [(name.text, name.get("relativeToVRT")) for name in names] == [
        (path.name, "1") for path in paths
    ] * 4  # three bands and the mask
    with Raster.open(tmp_path / "all.vrt") as raster:
        assert raster.descriptions == ("red edge", None, None)
