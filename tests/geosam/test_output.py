import gc
import json
import sqlite3
import weakref

import geopandas
import numpy as np
import pyogrio
import pytest
from pyproj import CRS
from shapely import LineString, MultiPolygon, Point, Polygon, box

from geosam.errors import OutputError, OutputExists
from geosam.output import shapefile_names, write

FORMATS = [".gpkg", ".geojson", ".json", ".fgb", ".shp", ".parquet"]
HOLED = Polygon(box(0, 0, 9, 9).exterior, [box(1, 1, 2, 2).exterior])
TWO = MultiPolygon([box(20, 0, 30, 9), box(40, 0, 50, 9)])
MOON = CRS(
    'GEOGCS["Moon",DATUM["Moon",SPHEROID["Moon",1737400,0]],PRIMEM["Reference",0],'
    'UNIT["degree",0.0174532925199433]]'
)


def table(geometry=(HOLED, TWO, None), crs="EPSG:32633", **columns):
    count = len(geometry)
    values = {
        "id": [f"ä{n}" for n in range(count)],
        "score": [np.nan if shape is None else 0.5 for shape in geometry],
        "count": range(count),
        "truncated": [n % 2 == 0 for n in range(count)],
    }
    return geopandas.GeoDataFrame(values | columns, geometry=list(geometry), crs=crs)


def read(path, **options):
    if path.suffix == ".parquet":
        return geopandas.read_parquet(path)
    return geopandas.read_file(path, **options).sort_values("id", ignore_index=True)


def names(folder):
    return sorted(part.name for part in folder.iterdir())


# Every format


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [*((suffix, "create") for suffix in FORMATS), (".gpkg", "append"), (".gpkg", "replace")],
)
def test_of_batches_few_are_held_at_once(tmp_path, suffix, mode):
    path, held, most = tmp_path / f"out{suffix}", [], 0
    if mode != "create":
        write(table().iloc[[2]], path)

    def batches():
        nonlocal most
        for n in range(8):
            batch = table().iloc[[] if n in (0, 5) else [0, 1]].assign(id=f"ä{n}")
            held.append(weakref.ref(batch))
            yield batch
            del batch
            gc.collect()
            most = max(most, sum(ref() is not None for ref in held))

    write(batches(), path, mode=mode)
    ids = [1, 1, 2, 2, 3, 3, 4, 4, 6, 6, 7, 7, *([2] if mode == "append" else [])]
    assert sorted(read(path)["id"]) == [f"ä{n}" for n in sorted(ids)]
    assert most <= 3  # of 8: the first, the one that is written and the next


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_is_written_is_read_back(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    write(table(), path)
    back = read(path)
    expected = table().to_crs(4326) if "json" in suffix else table()
    assert back.crs.equals(expected.crs, ignore_axis_order=True)
    assert back["id"].tolist() == ["ä0", "ä1", "ä2"]
    assert back["score"].fillna(-1).tolist() == [0.5, 0.5, -1]
    assert back["count"].tolist() == [0, 1, 2]
    assert back["truncated"].tolist() == [True, False, True]
    assert back.geometry.isna().tolist() == [False, False, True]
    tolerance = 1e-7 if "json" in suffix else 0
    for ours, theirs in zip(back.geometry[:2], expected.geometry[:2], strict=True):
        assert ours.hausdorff_distance(theirs) <= tolerance
        assert ours.symmetric_difference(theirs).area <= 100 * tolerance


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("geometry", [[], [None], [box(0, 0, 1, 1)]])
def test_few_rows_or_none_are_written(tmp_path, suffix, geometry):
    path = tmp_path / f"out{suffix}"
    write(table(geometry), path)
    assert len(
        geopandas.read_parquet(path) if suffix == ".parquet" else pyogrio.read_dataframe(path)
    ) == len(geometry)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_is_only_replaced_when_asked(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    write(table(), path)
    before = path.read_bytes()
    with pytest.raises(OutputExists, match=rf"out\{suffix}: exists already"):
        write(table([box(0, 0, 1, 1)]), path)
    assert path.read_bytes() == before
    write(table([box(0, 0, 1, 1)]), str(path), mode="replace")
    assert len(read(path)) == 1


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_failure_leaves_the_older_file_and_nothing_else(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"out{suffix}"
    write(table(), path)
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}

    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(pyogrio, "write_dataframe", fail)
    monkeypatch.setattr(geopandas.GeoDataFrame, "to_parquet", fail)
    with pytest.raises(KeyboardInterrupt):
        write(table(), path, mode="replace")
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before


def test_capital_extensions_are_known(tmp_path):
    write(table(), tmp_path / "OUT.GPKG")
    assert names(tmp_path) == ["OUT.GPKG"]


# GeoPackage


def test_polygons_and_multipolygons_share_a_layer(tmp_path):
    write(table(), tmp_path / "out.gpkg")
    info = pyogrio.read_info(tmp_path / "out.gpkg")
    assert (info["layer_name"], info["geometry_type"]) == ("out", "MultiPolygon")


def test_rows_are_appended(tmp_path):
    path = tmp_path / "out.gpkg"
    write(table([box(0, 0, 1, 1)]), path, mode="append")
    later = table([TWO, None], id=["b", "c"])
    write(later[["truncated", "count", "score", "id", "geometry"]], path, mode="append")
    back = read(path)
    assert back["id"].tolist() == ["b", "c", "ä0"]
    assert back["count"].tolist() == [0, 1, 0]
    assert back.geometry[0].equals(TWO)
    assert names(tmp_path) == ["out.gpkg"]


def test_layers_live_beside_each_other(tmp_path):
    path = tmp_path / "out.gpkg"
    write(table([box(0, 0, 1, 1)]), path, layer="trees")
    write(table(), path, layer="roofs", mode="append")
    write(table(), path, layer="trees", mode="replace")
    assert set(pyogrio.list_layers(path)[:, 0]) == {"trees", "roofs"}
    assert len(read(path, layer="trees")) == len(read(path, layer="roofs")) == 3


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (table(crs="EPSG:32634"), "CRS is EPSG:32634, not EPSG:32633"),
        (table(more=[1, 2, 3]), "more is integer, not there"),
        (table().drop(columns="score"), "score is missing, not float"),
        (table(count=["a", "b", "c"]), "count is text, not integer"),
        (table([Point(1, 2)]), "geometry is Point, not MultiPolygon"),
    ],
)
def test_only_like_rows_are_appended(tmp_path, rows, message):
    path = tmp_path / "out.gpkg"
    write(table(), path)
    before = path.read_bytes()
    with pytest.raises(OutputError, match=f"layer 'out' differs: {message}"):
        write(rows, path, mode="append")
    assert path.read_bytes() == before


def test_a_geopackage_that_is_open_elsewhere_is_left_alone(tmp_path):
    path = tmp_path / "out.gpkg"
    write(table(), path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA journal_mode=WAL")
    other.execute("UPDATE gpkg_contents SET description = 'edited'")
    for mode in ("append", "replace"):
        with pytest.raises(OutputError, match=r"open in another program, as out\.gpkg-wal shows"):
            write(table(), path, mode=mode)
    other.close()
    write(table(), path, mode="append")
    assert len(read(path)) == 6


def test_what_is_no_geopackage_is_not_appended_to(tmp_path):
    path = tmp_path / "out.gpkg"
    path.write_text("hello")
    with pytest.raises(OutputError, match="not a readable GeoPackage"):
        write(table(), path, mode="append")


# GeoJSON


def test_geojson_is_as_rfc_7946_wants_it(tmp_path):
    path = tmp_path / "out.geojson"
    write(table([box(500_000, 5_000_000, 500_100, 5_000_100)]), path)
    content = json.loads(path.read_text())
    assert "crs" not in content
    (ring,) = content["features"][0]["geometry"]["coordinates"]
    x, y = np.array(ring).T
    assert np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) > 0  # counter-clockwise
    assert x == pytest.approx(np.round(x, 7), abs=0)
    assert (x.min(), y.min()) == (15.0, pytest.approx(45.1535, abs=1e-3))


def test_geojson_is_cut_at_the_antimeridian(tmp_path):
    path = tmp_path / "out.geojson"
    write(table([box(160_000, 0, 172_000, 10_000)], crs="EPSG:32601"), path)
    geometry = geopandas.read_file(path).geometry[0]
    assert geometry.geom_type == "MultiPolygon"
    west, east = sorted(part.bounds for part in geometry.geoms)
    assert west[0] == -180 and west[2] < -179
    assert east[2] == 180 and east[0] > 179


def test_geojson_knows_only_the_earth(tmp_path):
    path = tmp_path / "out.geojson"
    with pytest.raises(
        OutputError, match=r"out\.geojson: .*expected a CRS of the Earth.*such as \.gpkg"
    ):
        write(table([box(1, 1, 2, 2)], crs=MOON), path)
    assert names(tmp_path) == []
    write(table([box(1, 1, 2, 2)], crs=MOON), path.with_suffix(".gpkg"))


# Shapefile


def test_a_shapefile_is_all_its_parts(tmp_path):
    path = tmp_path / "out.shp"
    write(table(), path)
    parts = ["out.cpg", "out.dbf", "out.prj", "out.shp", "out.shx"]
    assert names(tmp_path) == parts
    (tmp_path / "out.qix").write_bytes(b"index of the older file")
    (tmp_path / "other.qix").write_bytes(b"not ours")
    write(table(), path, mode="replace")
    assert names(tmp_path) == ["other.qix", *parts]


def test_a_stray_part_counts_as_the_file(tmp_path):
    (tmp_path / "out.dbf").write_bytes(b"someone's table")
    with pytest.raises(OutputExists, match=r"out\.dbf: exists already"):
        write(table(), tmp_path / "out.shp")


def test_long_column_names_are_shortened(tmp_path):
    columns = {"confidence_low": [1.0], "confidence_high": [2.0], "CONFIDENCE": [3.0]}
    write(table([box(0, 0, 1, 1)], **columns), tmp_path / "out.shp")
    back = read(tmp_path / "out.shp")
    assert back[["confidence", "confiden_1", "CONFIDEN_2"]].values.tolist() == [[1, 2, 3]]


def test_short_names_are_unlike_and_fit():
    result = shapefile_names([*(f"long_column_{n}" for n in range(12)), "ü" * 9, "id"])
    assert list(result.values())[:2] == ["long_colum", "long_col_1"]
    assert result["long_column_11"] == "long_co_11"
    assert result["ü" * 9] == "ü" * 5
    assert result["id"] == "id"
    assert len({name.lower() for name in result.values()}) == len(result)
    assert max(len(name.encode()) for name in result.values()) <= 10


def test_a_text_too_long_for_a_shapefile_is_not_cut(tmp_path):
    with pytest.raises(OutputError, match=r"out\.shp: .*254"):
        write(table([box(0, 0, 1, 1)], note=["x" * 300]), tmp_path / "out.shp")
    assert names(tmp_path) == []


# What is refused


def test_the_known_extensions_are_listed(tmp_path):
    with pytest.raises(OutputError, match=r"extension '\.kml' .*\.gpkg, \.geojson, .*\.parquet"):
        write(table(), tmp_path / "out.kml")


@pytest.mark.parametrize("suffix", sorted(set(FORMATS) - {".gpkg"}))
def test_only_a_geopackage_has_layers_and_grows(tmp_path, suffix):
    with pytest.raises(OutputError, match="layer 'a'"):
        write(table(), tmp_path / f"out{suffix}", layer="a")
    with pytest.raises(OutputError, match="mode 'append'"):
        write(table(), tmp_path / f"out{suffix}", mode="append")


def test_a_crs_and_a_folder_are_needed(tmp_path):
    with pytest.raises(OutputError, match="without a CRS"):
        write(table(crs=None), tmp_path / "out.gpkg")
    with pytest.raises(OutputError, match="no folder"):
        write(table(), tmp_path / "missing" / "out.gpkg")
    with pytest.raises(ValueError, match="mode: 'overwrite'"):
        write(table(), tmp_path / "out.gpkg", mode="overwrite")


def test_other_geometries_are_written_as_they_are(tmp_path):
    write(table([Point(1, 2), LineString([(0, 0), (1, 1)])]), tmp_path / "out.gpkg")
    assert set(read(tmp_path / "out.gpkg").geom_type) == {"Point", "LineString"}
    with pytest.raises(OutputError, match=r"out\.shp"):
        write(table([Point(1, 2), LineString([(0, 0), (1, 1)])]), tmp_path / "out.shp")
