"""Rasters as they are found in the wild, made in code: each gives polygons, or a reason why not.

`benchmarks/awkward_rasters.py` does the like with a folder of real files.
"""

import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import CRS, Transformer
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp

from geosam.errors import OutputError
from geosam.output import write
from geosam.prompts import PromptSet
from geosam.recipe import Stretch
from geosam.scene import ladder
from geosam.verbs import encode, segment
from tests.fakes import NORTH_UP, FloodModel, write_raster
from tests.geosam.test_verbs import burn, clicks
from tiles import ProjectionError, Raster, RasterError

HEIGHT, WIDTH = 100, 120
CENTRE = (50, 60)  # row, col of the disc
ROWS, COLS = np.ogrid[:HEIGHT, :WIDTH]
DISC = (ROWS - 50) ** 2 + (COLS - 60) ** 2 < 15**2
UPPER = np.broadcast_to(ROWS < 50, DISC.shape)
ROTATED = Affine.translation(516_096, 5_160_960) @ Affine.rotation(20) @ Affine.scale(1, -1)

MARS = (
    'PROJCRS["Equirectangular Mars",BASEGEOGCRS["Mars",DATUM["Mars",ELLIPSOID["Mars",3396190,0]],'
    'PRIMEM["Reference_Meridian",0]],CONVERSION["x",METHOD["Equidistant Cylindrical (Spherical)",'
    'ID["EPSG",1029]],PARAMETER["Latitude of 1st standard parallel",0],PARAMETER["Longitude of '
    'natural origin",0],PARAMETER["False easting",0],PARAMETER["False northing",0]],'
    'CS[Cartesian,2],AXIS["easting",east],AXIS["northing",north],LENGTHUNIT["metre",1]]'
)
GOES = "+proj=geos +h=35786023 +lon_0=-75 +sweep=x +ellps=GRS80"
CUSTOM = "+proj=laea +lat_0=48.3 +lon_0=11.7 +x_0=1000 +ellps=bessel"
LOCAL = (
    'ENGCRS["site",EDATUM["site"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],'
    'LENGTHUNIT["foot",0.3048]]'
)


def scene(dtype="uint8", low=20, high=200, bands=1):
    """A disc of `high` on `low`: (bands, H, W)."""
    return np.where(DISC, high, low).astype(dtype)[None].repeat(bands, 0)


def about(path):
    """What is said of a raster before it is encoded."""
    with Raster.open(path) as raster:
        stretch = Stretch.of(raster)
        grids = ladder(raster, FloodModel().size)
        return raster.fingerprint, raster.frame.pixel_size_m, stretch, grids


def through(path, places=(CENTRE,), **options):
    """A raster through opening, encoding and segmenting with a click on each (row, col)."""
    fingerprint, *_ = about(path)
    model = FloodModel()
    store = encode(model, path, path.parent / "f.zarr", scales=[1])
    assert store.meta["raster"] == fingerprint
    assert not store.missing(1) and not store.verify()
    encoded = model.encoded
    polygons = segment(model, store, clicks(path, places), simplify_m=0, **options)
    assert model.encoded == encoded
    assert len(polygons) == len(places)
    return polygons


def assert_is(polygons, path, truth, rel=0.02):
    """One whole polygon that covers the pixels of `truth` and has their area."""
    assert polygons["status"].tolist() == ["ok"]
    assert (burn(polygons.geometry[0], path) == truth).all()
    with Raster.open(path) as raster:
        assert CRS(polygons.crs).equals(raster.frame.crs, ignore_axis_order=True)
        expected = truth.sum() * np.prod(raster.frame.pixel_size_m)
    assert polygons["area_m2"].tolist() == pytest.approx([expected], rel=rel)


PLACES = {
    "rotated": ("EPSG:32611", ROTATED),
    "turned by 90 degrees": ("EPSG:32611", Affine(0, 1, 516_096, 1, 0, 5_160_960)),
    "south up": ("EPSG:4326", Affine(1e-4, 0, 15, 0, 1e-4, 45)),
    "south up and mirrored": ("EPSG:32611", Affine(-1, 0, 516_096, 0, 1, 5_160_960)),
    "antimeridian, UTM": ("EPSG:32660", Affine(1000, 0, 760_000, 0, -1000, 1_900_000)),
    "antimeridian, degrees": ("EPSG:4326", Affine(0.1, 0, 175, 0, -0.1, -10)),
    "degrees from 0 to 360": ("EPSG:4326", Affine(0.1, 0, 354, 0, -0.1, 40)),
    "Mars": (MARS, Affine(200, 0, 7_000_000, 0, -200, -800_000)),
    "geostationary": (GOES, Affine(2004, 0, -500_000, 0, -2004, 3_000_000)),
    "a CRS without a code": (CUSTOM, Affine(0.2, 0, 1000, 0, -0.2, 50)),
    "heights as well": ("EPSG:32633+5773", NORTH_UP),
    "feet": ("EPSG:2263", Affine(2, 0, 987_000, 0, -2, 213_000)),
    "polar": ("EPSG:3413", Affine(250, 0, -15_000, 0, -250, 12_500)),
    "a building site": (LOCAL, Affine(0.1, 0, 0, 0, -0.1, 10)),
}


@pytest.mark.parametrize("place", PLACES)
def test_wherever_it_lies(tmp_path, place):
    crs, transform = PLACES[place]
    path = write_raster(tmp_path / "a.tif", scene(), crs=crs, transform=transform)
    assert_is(through(path), path, DISC)


TYPES = {
    "int16, negative nodata": ("int16", -50, 900, -32768),
    "int8": ("int8", -3, 90, -128),
    "uint16, nodata 65535": ("uint16", 300, 2000, 65535),
    "uint32": ("uint32", 300, 70_000, 0),
    "float32, nodata NaN": ("float32", 0.01, 0.3, np.nan),
    "float32, huge nodata": ("float32", -1.5, 0.3, float(np.finfo(np.float32).min)),
    "float64": ("float64", 1e-9, 1e-8, -9999),
}


@pytest.mark.parametrize("bands", [1, 3, 4])
@pytest.mark.parametrize("kind", TYPES)
def test_whatever_its_numbers(tmp_path, kind, bands):
    dtype, low, high, nodata = TYPES[kind]
    image = scene(dtype, low, high, bands)
    lacking = slice(bands if dtype.startswith("u") else 1)  # unsigned: 0 in one band is no gap
    image[lacking, UPPER & DISC] = nodata
    path = write_raster(tmp_path / "a.tif", image, nodata=nodata)
    polygons = through(path, [(55, 60)])
    assert_is(polygons, path, DISC & ~UPPER)
    hole = through(path, [(45, 60)])  # a click on no data
    assert hole["status"].tolist() == ["empty"]
    assert hole.geometry.isna().all()


def test_nothing_but_nodata(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.zeros((4, 300, 71), np.uint16), nodata=0)
    model = FloodModel()
    polygons = segment(model, path, clicks(path, [(150, 35), (5, 5)]))
    assert polygons["status"].tolist() == ["empty", "empty"]
    assert encode(model, path).missing(1) == []
    assert model.encoded == 0


def test_hyperspectral(tmp_path):
    image = scene("int16", 100, 1000, 40)
    image[3:] = 7  # bands that are not looked at
    path = write_raster(tmp_path / "a.tif", image, nodata=-9999)
    assert_is(through(path), path, DISC)
    polygons = segment(
        FloodModel(), path, clicks(path, [CENTRE]), bands=[30, 20, 10], scales=[1],
        store=tmp_path / "g.zarr",
    )  # fmt: skip
    assert (burn(polygons.geometry[0], path)).all()  # flat there


def test_scale_and_offset_tags_change_nothing(tmp_path):
    path = write_raster(tmp_path / "a.tif", scene("int16", 100, 1000), nodata=-9999)
    before = about(path)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (1e-4,), (-0.1,)
    assert about(path)[2] == before[2]
    assert_is(through(path), path, DISC)


def test_a_palette(tmp_path):
    values = np.where(DISC, 2, 1).astype(np.uint8)
    values[:, :10] = 0
    path = write_raster(tmp_path / "a.tif", values, nodata=0)
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {0: (0, 0, 0, 255), 1: (10, 90, 20, 255), 2: (10, 20, 90, 255)})
    assert about(path)[2].bands == (1, 2, 3)
    assert_is(through(path), path, DISC)
    assert through(path, [(50, 5)])["status"].tolist() == ["empty"]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("colors", [1, 3])
def test_an_alpha_band(tmp_path, dtype, colors):
    image = scene(dtype, 20, 200, colors + 1)
    image[-1] = np.where(UPPER, 0, np.iinfo(dtype).max)
    path = write_raster(tmp_path / "a.tif", image)
    names = ("gray",) if colors == 1 else ("red", "green", "blue")
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [ColorInterp[name] for name in (*names, "alpha")]
    assert_is(through(path, [(55, 60)]), path, DISC & ~UPPER)


@pytest.mark.parametrize("internal", [True, False])
def test_a_mask_in_the_file_or_beside_it(tmp_path, internal):
    path = write_raster(tmp_path / "a.tif", scene(bands=3))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(path, "r+") as file:
        file.write_mask(~UPPER)
    assert (tmp_path / "a.tif.msk").exists() is not internal
    assert_is(through(path, [(55, 60)]), path, DISC & ~UPPER)


@pytest.mark.parametrize("scale", [0.5, 1])
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (9, 13)])
def test_smaller_than_a_tile_by_far(tmp_path, shape, scale):
    path = write_raster(tmp_path / "a.tif", np.full(shape, 7, np.float32))
    asked = clicks(path, [(shape[0] // 2, shape[1] // 2)])
    polygons = segment(FloodModel(), path, asked, scales=[scale], simplify_m=0)
    assert_is(polygons, path, np.ones(shape, bool), rel=0.15)  # corners are cut


def test_a_mosaic_of_two(tmp_path):
    image = scene()[0]
    write_raster(tmp_path / "left.tif", image[:, :60])
    write_raster(
        tmp_path / "right.tif", image[:, 55:], transform=NORTH_UP @ Affine.translation(55, 0)
    )
    sources = "".join(
        f'<SimpleSource><SourceFilename relativeToVRT="1">{name}.tif</SourceFilename>'
        f'<SourceBand>1</SourceBand><SrcRect xOff="0" yOff="0" xSize="{width}" ySize="100"/>'
        f'<DstRect xOff="{col}" yOff="0" xSize="{width}" ySize="100"/></SimpleSource>'
        for name, col, width in (("left", 0, 60), ("right", 55, 65))
    )
    path = tmp_path / "mosaic.vrt"
    path.write_text(
        '<VRTDataset rasterXSize="120" rasterYSize="100"><SRS>EPSG:32633</SRS>'
        "<GeoTransform>500000, 1, 0, 5000000, 0, -1</GeoTransform>"
        f'<VRTRasterBand dataType="Byte" band="1">{sources}</VRTRasterBand></VRTDataset>'
    )
    assert_is(through(path), path, DISC)


def test_the_edge_of_the_earth(tmp_path):
    """In a satellite's view some pixels see space: they have no place on the ground."""
    image = np.full((HEIGHT, WIDTH), 20, np.uint8)
    image[:30, 50:90] = 200  # across the edge
    place = Affine(20_000, 0, -1_200_000, 0, -20_000, 5_750_000)
    path = write_raster(tmp_path / "a.tif", image, crs=GOES, transform=place)
    with rasterio.open(path) as file:
        x, y = file.transform @ (np.argwhere(image == 200).T[::-1] + 0.5)
    latitudes = Transformer.from_crs(GOES, 4326, always_xy=True).transform(x, y)[1]
    assert 0.2 < np.isfinite(latitudes).mean() < 0.5
    for simplify_m in (None, 0, 1):
        polygons = segment(
            FloodModel(), path, clicks(path, [(20, 60), (90, 60)]), scales=[1],
            min_area_m2=100, simplify_m=simplify_m,
        )  # fmt: skip
        assert polygons["status"].tolist() == ["ok", "ok"]
        assert (burn(polygons.geometry[0], path) == (image == 200)).all()
    assert polygons["area_m2"].isna().tolist() == [True, True]
    with pytest.raises(OutputError, match=r"a\.geojson"):
        write(polygons, tmp_path / "a.geojson")
    write(polygons, tmp_path / "a.gpkg")
    with pytest.raises(ProjectionError, match=r"Point \(105\.0, 0\.0\) in WGS 84: no place"):
        segment(FloodModel(), path, PromptSet.of(points=[(105, 0)], crs="EPSG:4326"))


def test_prompts_of_another_planet_are_refused(tmp_path):
    crs, transform = PLACES["Mars"]
    path = write_raster(tmp_path / "a.tif", scene(), crs=crs, transform=transform)
    with pytest.raises(ProjectionError, match=r"Coordinates in WGS 84: no way to Equirectangular"):
        segment(FloodModel(), path, PromptSet.of(points=[(10, 10)], crs="EPSG:4326"))


# Refused


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    ("dtype", "profile", "message"),
    [
        ("uint8", {"crs": None}, r"no CRS \(expected a georeferenced raster\).*gdal_edit"),
        ("uint8", {"crs": None, "transform": ROTATED}, r"no CRS .*gdal_edit"),
        ("uint8", {"transform": Affine.identity()}, r"no transform .*gdal_edit"),
        ("complex64", {}, r"complex64 values \(expected real numbers\).*amplitude"),
    ],
)
def test_what_cannot_be_placed_or_seen_is_refused(tmp_path, dtype, profile, message):
    path = write_raster(tmp_path / "a.tif", scene(dtype), **profile)
    assert_refused(path, message)


def test_ground_control_points_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    corners = [(0, 0, 15, 45), (0, 120, 15.1, 45), (100, 0, 15, 44.9), (100, 120, 15.1, 44.9)]
    points = [GroundControlPoint(*corner) for corner in corners]
    profile = {"driver": "GTiff", "count": 1, "height": 100, "width": 120, "dtype": "uint8"}
    with rasterio.open(path, "w", **profile, gcps=points, crs="EPSG:4326") as file:
        file.write(scene())
    assert_refused(path, r"ground control points only .*gdalwarp .*a\.tif warped\.tif")


def assert_refused(path, message):
    """Nothing opens it, and nothing is left behind."""
    asked = PromptSet.of(points=[(0, 0)])
    for act in (
        about,
        lambda p: encode(FloodModel(), p),
        lambda p: segment(FloodModel(), p, asked),
    ):
        with pytest.raises(RasterError, match=message):
            act(path)
    assert list(path.parent.iterdir()) == [path]
