import threading
import warnings

import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import CRS
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.warp import transform_bounds

from tiles import Raster, RasterError, TileGrid, Window

NORTH_UP = Affine(2, 0, 500_000, 0, -2, 4_100_000)


def write(path, data, *, valid=None, colors=None, factors=(), gcps=None, **profile):
    """A GeoTIFF of `data` (C, H, W)."""
    profile = {"crs": "EPSG:32610", "transform": NORTH_UP} | profile
    count, height, width = data.shape
    shape = {"count": count, "height": height, "width": width, "dtype": data.dtype}
    with (
        warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", driver="GTiff", **shape, **profile) as file,
    ):
        file.write(data)
        if valid is not None:
            file.write_mask(valid)
        if colors:
            file.colorinterp = colors
        if gcps:
            file.gcps = gcps
        if factors:
            file.build_overviews(factors, Resampling.average)
    return path


def ramp(count=1, height=10, width=12, dtype=np.uint16):
    return np.arange(count * height * width).reshape(count, height, width).astype(dtype)


def noise(count=2, height=61, width=83, dtype=np.int16):
    return np.random.default_rng(0).integers(-90, 90, (count, height, width)).astype(dtype)


def test_it_reads_the_pixels_of_a_window_and_where_they_lie(tmp_path):
    data = ramp(3)
    with Raster.open(write(tmp_path / "a.tif", data, nodata=7)) as raster:
        chip = raster.read(Window(2, 3, 4, 5), bands=[3, 1])
        assert raster.frame.shape == (10, 12)
        assert raster.frame.crs == CRS("EPSG:32610")
        assert (raster.count, raster.dtype, raster.nodata) == (3, np.uint16, 7)
    assert chip.data.dtype == np.uint16
    assert chip.data.tolist() == data[[2, 0], 3:8, 2:6].tolist()
    assert chip.valid.all()
    assert chip.frame.shape == (5, 4)
    assert chip.frame.to_world([[0, 0]]).tolist() == [[500_004, 4_099_994]]


def test_a_pixel_is_valid_where_every_band_read_has_data(tmp_path):
    data = np.array([[[0, 1, 1]], [[1, 0, 1]]], np.int16) - 1
    with Raster.open(write(tmp_path / "a.tif", data, nodata=-1)) as raster:
        assert raster.read(raster.window).valid.tolist() == [[False, False, True]]
        assert raster.read(raster.window, [2]).valid.tolist() == [[True, False, True]]


def test_nan_and_infinity_are_no_data(tmp_path):
    data = np.array([[[np.nan, np.inf, -np.inf, -9999, 1]]], np.float32)
    with Raster.open(write(tmp_path / "a.tif", data, nodata=-9999)) as raster:
        assert raster.read(raster.window).valid.tolist() == [[False] * 4 + [True]]
    with Raster.open(write(tmp_path / "b.tif", data, nodata=np.nan)) as raster:
        assert raster.read(raster.window).valid.tolist() == [[False] * 3 + [True] * 2]


def test_alpha_is_validity_and_not_a_band(tmp_path):
    data = ramp(4, 1, 3, np.uint8)
    data[3] = [[0, 1, 255]]
    colors = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    with Raster.open(write(tmp_path / "a.tif", data, colors=colors)) as raster:
        chip = raster.read(raster.window)
        assert (raster.count, raster.colors) == (3, ("red", "green", "blue"))
    assert chip.data.tolist() == data[:3].tolist()
    assert chip.valid.tolist() == [[False, True, True]]


@pytest.mark.parametrize(
    ("dtype", "expected"), [(np.uint8, [True, True, False]), (np.int16, [True, False, False])]
)
def test_a_dark_pixel_of_an_unsigned_raster_is_no_hole(tmp_path, dtype, expected):
    data = np.array([[[4, 0, 0]], [[5, 6, 0]]], dtype)
    with Raster.open(write(tmp_path / "a.tif", data, nodata=0)) as raster:
        assert raster.read(raster.window).valid.tolist() == [expected]


def test_alpha_and_nodata_both_count(tmp_path):
    data = np.array([[[7, 1, 1]], [[255, 255, 0]]], np.uint8)
    with Raster.open(write(tmp_path / "a.tif", data, alpha="YES", nodata=7)) as raster:
        assert raster.read(raster.window).valid.tolist() == [[False, True, False]]


def test_an_internal_mask_is_validity(tmp_path):
    valid = np.array([[True, False], [False, True]])
    with Raster.open(write(tmp_path / "a.tif", ramp(3, 2, 2), valid=valid)) as raster:
        assert raster.read(raster.window).valid.tolist() == valid.tolist()


def test_a_mask_file_is_validity(tmp_path):
    path = write(tmp_path / "a.tif", ramp(1, 2, 2))
    valid = np.array([[True, False], [True, True]])
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as file:
        file.write_mask(valid)
    assert (tmp_path / "a.tif.msk").exists()
    with Raster.open(path) as raster:
        assert raster.read(raster.window).valid.tolist() == valid.tolist()


def test_a_palette_reads_as_colors(tmp_path):
    path = write(tmp_path / "a.tif", np.array([[[0, 1, 2]]], np.uint8), nodata=2)
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {0: (10, 20, 30, 255), 1: (40, 50, 60, 255), 2: (7, 8, 9, 255)})
    with Raster.open(path) as raster:
        chip = raster.read(raster.window)
        blue = raster.read(raster.window, [3])
        assert (raster.count, raster.colors) == (3, ("red", "green", "blue"))
        assert raster.dtype == np.uint8
    assert chip.data[:, 0, :2].tolist() == [[10, 40], [20, 50], [30, 60]]
    assert chip.valid.tolist() == [[True, True, False]]
    assert blue.data[0, 0, :2].tolist() == [30, 60]


def test_bands_of_different_types_read_as_one_that_holds_all(tmp_path):
    one = write(tmp_path / "one.tif", ramp(1, 2, 2, np.uint16))
    two = write(tmp_path / "two.tif", -ramp(1, 2, 2, np.int16))
    bands = "".join(
        f'<VRTRasterBand dataType="{kind}" band="{band}"><SimpleSource>'
        f"<SourceFilename>{path}</SourceFilename><SourceBand>1</SourceBand>"
        "</SimpleSource></VRTRasterBand>"
        for band, kind, path in [(1, "UInt16", one), (2, "Int16", two)]
    )
    vrt = tmp_path / "both.vrt"
    vrt.write_text(
        '<VRTDataset rasterXSize="2" rasterYSize="2"><SRS>EPSG:32610</SRS>'
        f"<GeoTransform>0,1,0,0,0,-1</GeoTransform>{bands}</VRTDataset>"
    )
    with Raster.open(vrt) as raster:
        assert raster.dtype == np.int32
        assert raster.read(raster.window).data.tolist() == [[[0, 1], [2, 3]], [[0, -1], [-2, -3]]]


@pytest.mark.parametrize(
    "transform", [Affine(2, 0, 0, 0, 2, 0), Affine(0, 2, 100, 2, 0, 50), Affine(1, 1, 0, 1, -1, 0)]
)
def test_south_up_and_turned_rasters_keep_their_transform(tmp_path, transform):
    with Raster.open(write(tmp_path / "a.tif", ramp(), transform=transform)) as raster:
        assert raster.frame.transform == transform


def test_a_coarse_pixel_is_the_mean_of_valid_ones(tmp_path):
    data = np.array([[[1, 3, 8], [5, -1, 8], [6, 6, -1]]], np.int16)
    with Raster.open(write(tmp_path / "a.tif", data, nodata=-1)) as raster:
        chip = raster.read(raster.window, scale=2)
    assert chip.data.tolist() == [[[3, 8], [6, 0]]]
    assert chip.valid.tolist() == [[True, True], [True, False]]
    assert chip.frame.shape == (2, 2)
    assert chip.frame.transform == Affine(4, 0, 500_000, 0, -4, 4_100_000)


def test_beyond_the_raster_there_is_no_data(tmp_path):
    data = np.array([[[1, 3, 8], [5, 7, 8], [6, 6, 4]]], np.uint8)
    with Raster.open(write(tmp_path / "a.tif", data)) as raster:
        exact = raster.read(Window(-1, 1, 3, 4))
        coarse = raster.read(Window(-1, -3, 6, 6), scale=2)
        fine = raster.read(Window(2, -1, 2, 2), scale=0.5)
    assert exact.data.tolist() == [[[0, 5, 7], [0, 6, 6], [0, 0, 0], [0, 0, 0]]]
    assert exact.valid.tolist() == [[False, True, True]] * 2 + [[False] * 3] * 2
    assert exact.frame.transform == Affine(2, 0, 499_998, 0, -2, 4_099_998)
    assert coarse.data.tolist() == [[[0, 0, 0], [1, 6, 0], [6, 6, 0]]]
    inside = [[False] * 3, [True, True, False], [True, True, False]]
    assert coarse.valid.tolist() == coarse.whole.tolist() == inside
    assert fine.data.tolist() == [[[0] * 4, [0] * 4, [7, 8, 0, 0], [7, 8, 0, 0]]]


@pytest.mark.parametrize("anchor", [(0, 0), (3, 2)])
@pytest.mark.parametrize("scale", [0.25, 0.5, 1, 2, 3, 4])
@pytest.mark.parametrize("factors", [(), (2,)])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_a_pixel_does_not_depend_on_the_window(
    tmp_path, monkeypatch, anchor, scale, factors, dtype
):
    monkeypatch.setattr("tiles.raster._STRIP_BYTES", 1)  # strips as thin as can be
    path = write(tmp_path / "a.tif", noise(dtype=dtype), nodata=5, factors=factors)
    finer = max(1, round(1 / scale))
    with Raster.open(path) as raster:
        grid = TileGrid(raster.frame.shape, 8 * finer, 4 * finer, scale, anchor)
        corner, *_, last = (tile.read for tile in grid)
        around = Window.spanning(corner.col, corner.row, last.right, last.bottom)
        whole = raster.read(around, scale=scale)
        assert not whole.valid.all()
        for tile in grid:
            chip = raster.read(tile.read, scale=scale)
            row = round((tile.read.row - corner.row) / scale)
            col = round((tile.read.col - corner.col) / scale)
            part = np.s_[row : row + tile.shape[0], col : col + tile.shape[1]]
            assert chip.data.tobytes() == whole.data[:, *part].tobytes()
            assert chip.valid.tobytes() == whole.valid[part].tobytes()
            assert chip.valid.shape == chip.frame.shape == tile.shape


def test_a_fine_pixel_is_interpolated_and_clamped_at_the_border(tmp_path):
    data = np.array([[[0, 40, 80]]], np.uint8)
    with Raster.open(write(tmp_path / "a.tif", data)) as raster:
        assert raster.read(raster.window, scale=0.5).data.tolist() == [
            [[0, 10, 30, 50, 70, 80]] * 2
        ]
        middle = raster.read(Window(1, 0, 1, 1), scale=0.5)
    assert middle.data.tolist() == [[[30, 50]] * 2]
    assert middle.frame.transform == Affine(1, 0, 500_002, 0, -1, 4_100_000)


@pytest.mark.parametrize(
    ("window", "scale", "message"),
    [
        (Window(-4, 0, 4, 4), 1, "off the raster"),
        (Window(9_000, 0, 4, 4), 1, "off the raster"),
        (Window(0, 0, 5, 4), 2, "multiples of 2"),
        (Window(0, 0, 4, 4), 1.5, "whole number"),
    ],
)
def test_a_window_that_does_not_fit_is_refused(tmp_path, window, scale, message):
    with (
        Raster.open(write(tmp_path / "a.tif", ramp())) as raster,
        pytest.raises(ValueError, match=message),
    ):
        raster.read(window, scale=scale)


@pytest.mark.parametrize("bands", [[0], [4], []])
def test_a_band_that_does_not_exist_is_refused(tmp_path, bands):
    with (
        Raster.open(write(tmp_path / "a.tif", ramp(3))) as raster,
        pytest.raises(RasterError, match="1 to 3"),
    ):
        raster.read(raster.window, bands)


def test_what_is_no_raster_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("a raster, honestly")
    for name in ("notes.txt", "nothing.tif"):
        with pytest.raises(RasterError, match=f"{name}: cannot be opened"):
            Raster.open(tmp_path / name)


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ({"crs": None}, "no CRS"),
        ({"transform": Affine(1, 0, 0, 0, 1, 0)}, "no transform"),
        ({"transform": Affine(1, 2, 3, 2, 4, 6)}, "not understood"),
        ({"data": ramp(dtype=np.complex64)}, "complex64"),
        ({"data": ramp(1, dtype=np.uint8), "colors": [ColorInterp.alpha]}, "no bands"),
    ],
)
def test_a_raster_without_place_or_numbers_is_refused(tmp_path, profile, message):
    data = profile.pop("data", ramp())
    path = write(tmp_path / "a.tif", data, **profile)
    with pytest.raises(RasterError, match=message):
        Raster.open(path)


def test_ground_control_points_are_not_enough(tmp_path):
    corners = [(0, 0), (0, 12), (10, 0), (10, 12)]
    points = [GroundControlPoint(row, col, 5e5 + col, 4e6 - row) for row, col in corners]
    path = tmp_path / "a.tif"
    write(path, ramp(), gcps=(points, rasterio.CRS.from_epsg(32610)), crs=None, transform=None)
    with pytest.raises(RasterError, match=r"ground control points only.*gdalwarp"):
        Raster.open(path)


def test_another_planet_is_fine(tmp_path):
    mars = CRS("ESRI:104905")
    with Raster.open(write(tmp_path / "a.tif", ramp(), crs=mars.to_wkt())) as raster:
        assert "Mars" in raster.frame.crs.name


def test_a_damaged_file_is_a_raster_error(tmp_path):
    path = write(tmp_path / "a.tif", noise(1, 512, 512), compress="deflate")
    content = bytearray(path.read_bytes())
    content[len(content) // 4 : len(content) * 3 // 4] = bytes(len(content) // 2)
    path.write_bytes(content)
    with pytest.raises(RasterError, match=r"unreadable|opened"), Raster.open(path) as raster:
        raster.read(raster.window)


def test_the_fingerprint_is_of_the_raster_and_not_of_the_file(tmp_path):
    data = noise(2, 300, 300)

    def fingerprint(name, pixels=data, **profile):
        with Raster.open(write(tmp_path / name, pixels, **profile)) as raster:
            return raster.fingerprint

    first = fingerprint("a.tif")
    assert len(first) == 16 and int(first, 16) >= 0
    assert fingerprint("b.tif", compress="deflate", tiled=True, factors=(2,)) == first
    edited = data.copy()
    edited[1, 299, 299] += 1
    others = {
        fingerprint("c.tif", edited),
        fingerprint("d.tif", data[:1]),
        fingerprint("e.tif", data.astype(np.int32)),
        fingerprint("f.tif", nodata=91),
        fingerprint("g.tif", crs="EPSG:32611"),
        fingerprint("h.tif", transform=Affine(2, 0, 0, 0, -2, 0)),
        fingerprint("i.tif", valid=data[0] > 0),
    }
    assert len(others - {first}) == 7


def test_a_small_raster_is_sampled_whole(tmp_path):
    data = noise()
    with Raster.open(write(tmp_path / "a.tif", data, nodata=5)) as raster:
        values, valid = raster.sample()
        assert values.tolist() == data.reshape(2, -1).tolist()
        assert valid.tolist() == (data != 5).all(axis=0).ravel().tolist()
        assert raster.sample([2])[0].tolist() == data[1:].reshape(1, -1).tolist()


def test_a_large_raster_without_overviews_is_sampled_from_edge_to_edge(tmp_path):
    height, width = 1500, 1700
    data = ramp(1, height, width, np.uint32)
    with Raster.open(write(tmp_path / "a.tif", data)) as raster:
        values, valid = raster.sample(max_px=1_000_000)
        again, _ = raster.sample(max_px=1_000_000)
    assert (values == again).all() and valid.all()
    rows, cols = np.divmod(values[0], width)
    assert len(np.unique(values)) >= 64 * 128 * 128 * 0.9
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (0, height - 1, 0, width - 1)


def test_data_that_lies_between_the_blocks_is_found(tmp_path):
    data = np.zeros((1, 4000, 4000), np.uint16)
    aoi = np.s_[0, 700:1000, 650:950]  # no block of a sparse sample meets it
    rasters = []
    for value in (500, 600):
        data[aoi] = value
        path = tmp_path / f"{value}.tif"
        with Raster.open(write(path, data, nodata=0, compress="deflate", tiled=True)) as raster:
            values, valid = raster.sample()
            assert valid.any() and (values[0, valid] == value).all()
            assert values.size < 2_000_000
            rasters.append(raster.fingerprint)
    assert rasters[0] != rasters[1]


def test_many_threads_read_the_same(tmp_path):
    data = noise(3, 256, 256)
    failures = []
    with Raster.open(write(tmp_path / "a.tif", data, compress="deflate", tiled=True)) as raster:

        def read(offset):
            for step in range(20):
                window = Window(offset, step, 100, 100)
                if not (raster.read(window).data == data[:, *window.slices()]).all():
                    failures.append(window)

        threads = [threading.Thread(target=read, args=(offset,)) for offset in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures


def test_bounds_agree_with_rasterio(tmp_path):
    path = write(tmp_path / "a.tif", ramp())
    with rasterio.open(path) as file, Raster.open(path) as raster:
        assert raster.frame.bounds == tuple(file.bounds)
        expected = transform_bounds(file.crs, "EPSG:4326", *file.bounds)
        box = raster.frame.box_to_pixel(expected, CRS("EPSG:4326"))
    assert box[0] <= 0 and box[1] <= 0 and box[2] >= 12 and box[3] >= 10
