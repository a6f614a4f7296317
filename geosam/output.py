"""Writes polygons to vector files: whole, or not at all."""

import json
import shutil
import warnings
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import geopandas
import numpy as np
import pandas
import pyarrow
import pyogrio
import shapely
from pandas.api import types
from pyarrow.parquet import ParquetWriter
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError
from shapely import GeometryType

from geosam.drafts import draft
from geosam.errors import OutputError, OutputExists

Mode: TypeAlias = Literal["create", "append", "replace"]

_DRIVERS = {
    ".gpkg": "GPKG",
    ".geojson": "GeoJSON",
    ".json": "GeoJSON",
    ".fgb": "FlatGeobuf",
    ".shp": "ESRI Shapefile",
    ".parquet": "Parquet",
}
_STREAMING = {"GPKG", "FlatGeobuf", "GeoJSON", "Parquet"}
_POLYGONS = {"Polygon", "MultiPolygon"}
_SHAPEFILE_PARTS = (
    *(".shp", ".shx", ".dbf", ".prj", ".cpg"),
    *(".qix", ".sbn", ".sbx", ".qpj", ".idm", ".ind", ".shp.xml"),
)
_SHAPEFILE_NAME_BYTES = 10


def write(
    gdf: geopandas.GeoDataFrame | Iterable[geopandas.GeoDataFrame],
    path: str | Path,
    *,
    layer: str | None = None,
    mode: Mode = "create",
) -> None:
    """Write polygons to the kind of file that the path's extension names.

    ==================  ============================================================
    .gpkg               GeoPackage; the only one with several layers
    .geojson, .json     GeoJSON as RFC 7946 wants it: WGS 84, 7 decimals, cut at the
                        antimeridian
    .fgb                FlatGeobuf; in spatial order, or in rows' order without a
                        spatial index where a geometry is missing
    .shp                Shapefile; column names as `shapefile_names` shortens them
    .parquet            GeoParquet
    ==================  ============================================================

    GeoPackage and FlatGeobuf hold polygons as MultiPolygons. Rows without geometry are kept. The
    file appears under its name when it is whole; until then an older one stays as it was.

    Args:
        gdf: The polygons, in a known CRS; or batches of them with the same columns, which are
            written one after the other, so that they need not all fit the memory.
        path: The file, in an existing folder.
        layer: Name of the layer, in a GeoPackage only; None: the file's name.
        mode: "create": a new file. "replace": a new file, or in place of an older one; in a
            GeoPackage only the layer is replaced. "append": more rows in, or one more layer of, a
            GeoPackage.

    Raises:
        OutputExists: If the file exists and the mode is "create".
        OutputError: If the file cannot hold the polygons, or not without a loss.
    """
    path = Path(path)
    driver = _driver(path)
    check_path(path, layer=layer, mode=mode)
    layer = layer or path.stem
    amend = driver == "GPKG" and path.exists()
    if isinstance(gdf, geopandas.GeoDataFrame):
        if gdf.crs is None:
            raise OutputError(
                f"{path}: polygons without a CRS (expected one). Set it with set_crs."
            )
        first, rest = gdf, iter(list[geopandas.GeoDataFrame]())
    else:
        if driver in _STREAMING and not amend:
            _write_batches(gdf, path, driver, layer, mode)
            return
        rest = iter(gdf)
        first = _first(rest, path)
    if driver == "GeoJSON":
        _check_way_to_wgs84(path, first.crs)
    more = amend and mode == "append" and layer in _layers(path)
    with draft(path) as place:
        if amend:
            shutil.copyfile(path, place)
        append = more
        for batch in chain([first], (batch for batch in rest if len(batch))):
            own = _like_layer(batch, path, layer) if more else batch
            problem = _write(own, place, driver, layer, append)
            if problem:
                raise OutputError(
                    f"{path}: {problem} (expected polygons that {path.suffix} can hold without a "
                    "loss, and room for them). Write another format, such as .gpkg, or make room."
                )
            append = True
        _make_way(place, path, mode)


def shapefile_names(columns: Iterable[str]) -> dict[str, str]:
    """The names that columns get in a Shapefile: at most 10 bytes, unlike in more than case.

    A longer name is cut; where that makes two alike, the later one ends in _1, _2 and so on.
    """
    names: dict[str, str] = {}
    for column in columns:
        taken = {name.lower() for name in names.values()}
        candidates = (_cut(column, f"_{n}" if n else "") for n in range(len(taken) + 1))
        names[column] = next(name for name in candidates if name.lower() not in taken)
    return names


def _cut(name: str, ending: str) -> str:
    kept = name.encode()[: _SHAPEFILE_NAME_BYTES - len(ending)].decode(errors="ignore")
    return kept + ending


def _driver(path: Path) -> str:
    driver = _DRIVERS.get(path.suffix.lower())
    if driver is None:
        raise OutputError(
            f"{path}: extension {path.suffix!r} (expected one of {', '.join(_DRIVERS)}). "
            "Choose one of them."
        )
    return driver


def _check_way_to_wgs84(path: Path, crs: CRS) -> None:
    try:
        Transformer.from_crs(crs, "EPSG:4326")
    except ProjError as error:
        raise OutputError(
            f"{path}: polygons in {crs.name} (expected a CRS of the Earth, as GeoJSON is in WGS "
            "84). Write another format, such as .gpkg."
        ) from error


def check_path(path: Path, *, layer: str | None = None, mode: Mode = "create") -> None:
    """Refuse early what `write` would refuse whatever the polygons are.

    Raises:
        OutputExists: If the file exists and the mode is "create".
        OutputError: If polygons cannot be written there, or not in this mode.
    """
    _driver(path)
    is_geopackage = path.suffix.lower() == ".gpkg"
    if mode not in get_args(Mode):
        raise ValueError(f"mode: {mode!r} (expected one of {', '.join(get_args(Mode))}).")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: no folder {path.parent} (expected it to exist). Create it.")
    if layer is not None and not is_geopackage:
        raise OutputError(
            f"{path}: layer {layer!r} (expected none; only a .gpkg has layers). Leave it out."
        )
    if mode == "append" and not is_geopackage:
        raise OutputError(
            f"{path}: mode 'append' (expected a .gpkg, the only one to append to). Write to a "
            ".gpkg, or to a new file."
        )
    older = [part for part in _parts(path) if part.exists()]
    if older and mode == "create":
        raise OutputExists(
            f"{older[0]}: exists already (expected a new file). Choose another name, or replace "
            f"it with mode='replace'{', or append to it' if is_geopackage else ''}."
        )
    busy = path.with_name(f"{path.name}-wal")
    if is_geopackage and busy.exists():
        raise OutputError(
            f"{path}: open in another program, as {busy.name} shows (expected it closed). Close it "
            "there, or choose another name."
        )


def _parts(path: Path) -> list[Path]:
    """All files that belong to the one that the user names."""
    if path.suffix.lower() != ".shp":
        return [path]
    return [path.with_suffix(suffix) for suffix in _SHAPEFILE_PARTS]


def _layers(path: Path) -> set[str]:
    try:
        return set(pyogrio.list_layers(path)[:, 0])
    except DataSourceError as error:
        raise OutputError(
            f"{path}: not a readable GeoPackage, {error} (expected one to add to). Remove it, or "
            "choose another name."
        ) from error


def _like_layer(gdf: geopandas.GeoDataFrame, path: Path, layer: str) -> geopandas.GeoDataFrame:
    """The rows with their columns in the layer's order, if they fit it."""
    info = pyogrio.read_info(path, layer=layer)
    theirs = dict(zip(info["fields"].tolist(), map(_kind, info["dtypes"]), strict=True))
    ours = {name: _kind(kind) for name, kind in gdf.drop(columns=gdf.geometry.name).dtypes.items()}
    differing = sorted(
        f"{name} is {ours.get(name, 'missing')}, not {theirs.get(name, 'there')}"
        for name in ours.keys() | theirs.keys()
        if ours.get(name) != theirs.get(name)
    )
    crs = CRS.from_user_input(info["crs"]) if info["crs"] else None
    if not gdf.crs.equals(crs, ignore_axis_order=True):
        differing.append(f"CRS is {gdf.crs.to_string()}, not {info['crs']}")
    if info["geometry_type"] not in (_geometry_type(gdf), "Unknown"):
        differing.append(f"geometry is {_geometry_type(gdf)}, not {info['geometry_type']}")
    if differing:
        raise OutputError(
            f"{path}: layer {layer!r} differs: {'; '.join(differing)} (expected the same columns "
            "and CRS). Append to another layer."
        )
    return gdf[[*theirs, gdf.geometry.name]]


def _kind(dtype: object) -> str:
    kind = pandas.api.types.pandas_dtype(dtype)
    for name, is_kind in (
        ("bool", types.is_bool_dtype),
        ("integer", types.is_integer_dtype),
        ("float", types.is_float_dtype),
        ("time", types.is_datetime64_any_dtype),
    ):
        if is_kind(kind):
            return name
    return "text"


def _geometry_type(gdf: geopandas.GeoDataFrame) -> str:
    kinds = set(gdf.geom_type.dropna())
    if kinds <= _POLYGONS:
        return "MultiPolygon"
    return str(*kinds) if len(kinds) == 1 else "Unknown"


def _write_batches(
    batches: Iterable[geopandas.GeoDataFrame], path: Path, driver: str, layer: str, mode: Mode
) -> None:
    """Write batches of polygons one after the other into a new file."""
    coming = iter(batches)
    first = _first(coming, path)
    if driver == "GeoJSON":
        _check_way_to_wgs84(path, first.crs)
    problems: list[BaseException] = []

    def records() -> Iterator[pyarrow.RecordBatch]:
        try:
            for batch in chain([first], coming):
                if len(batch):
                    yield from _arrow(batch, driver).to_batches()
        except BaseException as problem:  # arrow would turn it into a text
            problems.append(problem)
            raise

    with draft(path) as place:
        schema = _arrow(first, driver).schema
        stream = pyarrow.RecordBatchReader.from_batches(schema, records())
        try:
            _write_stream(stream, place, driver, layer, first)
        except (DataSourceError, DataLayerError, pyarrow.ArrowException) as error:
            raise OutputError(
                f"{path}: {error} (expected to be written). Make room if the disk is full, and run "
                "again."
            ) from error
        finally:
            for problem in problems:
                raise problem
        _make_way(place, path, mode)


def _first(coming: Iterator[geopandas.GeoDataFrame], path: Path) -> geopandas.GeoDataFrame:
    """The first batch that tells its columns' types, which an empty one does not."""
    first: geopandas.GeoDataFrame | None = None
    for first in coming:
        if len(first):
            break
    if first is None or first.crs is None:
        raise OutputError(
            f"{path}: {'nothing' if first is None else 'polygons without a CRS'} (expected batches "
            "of polygons in a CRS)."
        )
    return first


def _arrow(gdf: geopandas.GeoDataFrame, driver: str) -> pyarrow.Table:
    """Polygons as a table; all of them multipolygons, unless the driver takes both."""
    if driver == "Parquet":
        return pyarrow.table(gdf.to_arrow(index=False))
    shapes = gdf.geometry.to_numpy()
    alone = shapely.get_type_id(shapes) == GeometryType.POLYGON
    parts, owners = shapely.get_parts(shapes[alone]), np.arange(alone.sum())
    many = shapes.copy()
    many[alone] = shapely.multipolygons(parts, indices=owners)
    return pyarrow.table(gdf.set_geometry(many, crs=gdf.crs).to_arrow(index=False))


def _write_stream(
    stream: pyarrow.RecordBatchReader,
    path: Path,
    driver: str,
    layer: str,
    first: geopandas.GeoDataFrame,
) -> None:
    """Write polygons as they come; the first ones tell their CRS."""
    name = first.geometry.name
    if driver == "Parquet":
        column = {"encoding": "WKB", "geometry_types": [], "crs": first.crs.to_json_dict()}
        about = {"version": "1.1.0", "primary_column": name, "columns": {name: column}}
        schema = stream.schema.with_metadata({"geo": json.dumps(about)})
        with ParquetWriter(path, schema) as file:
            for batch in stream:
                file.write_batch(batch.replace_schema_metadata(schema.metadata))
        return
    options: dict[str, str] = {"RFC7946": "YES"} if driver == "GeoJSON" else {}
    pyogrio.write_arrow(
        stream, path, layer=layer, driver=driver, geometry_type="MultiPolygon",
        geometry_name=name, crs=first.crs.to_wkt(), **options,
    )  # fmt: skip


def _write(gdf: geopandas.GeoDataFrame, path: Path, driver: str, layer: str, append: bool) -> str:
    """Write a file and say what went wrong, be it that a value was changed."""
    if driver == "Parquet":
        gdf.to_parquet(path, index=False)
        return ""
    kind = _geometry_type(gdf)
    options: dict[str, object] = {"geometry_type": kind}
    if driver == "GeoJSON":
        options = {"RFC7946": "YES"}
    if driver in ("GPKG", "FlatGeobuf"):
        options["promote_to_multi"] = kind == "MultiPolygon"
    if driver == "FlatGeobuf":
        options["SPATIAL_INDEX"] = "NO" if gdf.geometry.isna().any() else "YES"
    if driver == "ESRI Shapefile":
        columns = gdf.columns.drop(gdf.geometry.name)
        gdf = gdf.rename(columns=shapefile_names(columns))
    with warnings.catch_warnings(record=True) as losses:
        warnings.simplefilter("always", RuntimeWarning)
        try:
            pyogrio.write_dataframe(gdf, path, layer=layer, driver=driver, append=append, **options)
        except (DataSourceError, DataLayerError) as error:
            return str(error)
    # GDAL warns of shortened texts and unmoved coordinates. A GeoPackage knows neither; there it
    # warns of what else the file holds.
    return "" if driver == "GPKG" else "; ".join(str(loss.message) for loss in losses)


def _make_way(place: Path, path: Path, mode: Mode) -> None:
    """Remove what an older file has and the new one lacks; refuse a file that has come since."""
    if mode == "create":
        check_path(path)
    names = {part.name for part in place.parent.iterdir()}
    for part in _parts(path):
        if part.name not in names:
            part.unlink(missing_ok=True)
