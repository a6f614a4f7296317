"""What outlining every object of a raster would take, measured on some of its ground."""

import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import shapely

from geosam.automatic.candidates import RELAXED, STRICT
from geosam.automatic.objects import Geometries, Numbers, Objects
from geosam.automatic.painting import Ground, Spool, best_on_top, paint
from geosam.automatic.run import DENSITY, FILL_PX, SMOOTH_PX
from geosam.automatic.sweep import merged
from geosam.automatic.tile_work import Plan, ask, keep, result_of, work_on
from geosam.automatic.tiling import Grids
from geosam.forecast import Forecast
from geosam.polygons import vectorize
from geosam.protocol import Model
from geosam.scene import Scene
from tiles import Raster, Tile, Window

TRIED_S = 6.0  # about how long tiles are prompted for, if one of them takes no longer
FIRST_DENSITY = 8  # points along the side of the first tile, whose slow start is not counted
EMPTY_BYTES = 98_304  # of a GeoPackage without objects
PAGE_BYTES = 4096  # of it, none of which rows share that do not fit into one
ROW_BYTES = 114  # of an object's row, beside its outline
INDEX_BYTES = 64  # of an object in the spatial index


@dataclass(frozen=True, slots=True)
class ObjectsForecast:
    """What `everything` is expected to take, with all options as they are by default.

    Attributes:
        objects: how many, about.
        seconds: wall time, on this machine as busy as it is now, encoding included.
        megabytes: of the work folder and a GeoPackage of the objects; features not included.
    """

    objects: int
    seconds: float
    megabytes: float


@dataclass(frozen=True, slots=True)
class _Found:
    """What some ground holds, and what finding it took."""

    objects: float
    seconds: float
    size: float  # bytes


def forecast_objects(
    model: Model, raster: Raster, encoding: Forecast, bands: Sequence[int] | None = None
) -> tuple[ObjectsForecast, ObjectsForecast]:
    """Outline the objects of some tiles and count up: with overlaps, and with `coverage`.

    A scale above 2 is taken to cost a quarter of the one below it, as it has a quarter of the
    points.

    Args:
        model: see `load_model`.
        raster: the scene.
        encoding: what encoding it takes.
        bands: see `Stretch.of`.

    Raises:
        RasterError: the raster cannot be read.
    """
    if not encoding.seen:
        nothing = ObjectsForecast(0, encoding.seconds, 0.0)
        return nothing, nothing
    most = max(encoding.seen.values())
    tiles = [tile for tile, px in encoding.seen.items() if 2 * px > most]
    random.Random(0).shuffle(tiles)  # any order that is the same each time
    strict: list[_Found] = []
    with tempfile.TemporaryDirectory() as name:
        scene = Scene.open(model, raster.source, store=Path(name) / "tried.zarr", bands=bands)
        _try(scene, tiles[0], encoding.tile_s, coverage=True, density=FIRST_DENSITY)
        for tile in tiles:
            strict.append(_try(scene, tile, encoding.tile_s, coverage=False))
            if sum(found.seconds for found in strict) > TRIED_S:
                break
        tried = tiles[: len(strict)]
        relaxed = [_try(scene, tile, encoding.tile_s, coverage=True) for tile in tried]
    ground = encoding.valid_px / sum(encoding.seen[tile] for tile in tried)
    return _counted_up(strict, ground, encoding), _counted_up(relaxed, ground, encoding)


def _counted_up(found: Sequence[_Found], ground: float, encoding: Forecast) -> ObjectsForecast:
    """What is to be expected on so many times as much ground."""
    seconds = ground * sum(some.seconds for some in found)
    size = ground * sum(some.size for some in found)
    return ObjectsForecast(
        round(ground * sum(some.objects for some in found)),
        encoding.seconds + seconds,
        (EMPTY_BYTES + size) / 1e6,
    )


def _try(
    scene: Scene, tile: Tile, encode_s: float, *, coverage: bool, density: int = DENSITY
) -> _Found:
    """What is found on the core of a tile of the finest scale, encoding left out."""
    core = tile.core
    inside = shapely.box(core.col, core.row, core.right, core.bottom)
    scales = tuple(scale for scale in scene.store.scales if scale >= 1)
    coarser = sum(0.25**i for i in range(len(scales) - 1))
    weights = dict(zip(scales[:2], (1.0, coarser), strict=False))
    seconds = size = 0.0
    found = Objects.none()
    with tempfile.TemporaryDirectory() as name:
        plan = Plan(
            scene, scales, Grids(scene, scales[-1]), max(1, scene.model.size // density),
            RELAXED if coverage else STRICT, inside, Path(name),
        )  # fmt: skip
        for scale, weight in weights.items():
            own = list(scene.store.grid(scale).over(core))
            scene.ensure(own)
            before, began = _encoded(scene), time.perf_counter()
            for asked, arrays in work_on(scene, [ask(each, plan) for each in own]):
                keep(asked, arrays, plan)
            seconds += weight * (time.perf_counter() - began)
            seconds -= weight * encode_s * (_encoded(scene) - before)
            results = [result_of(each, plan) for each in own]
            size += weight * sum(plan.path(each).stat().st_size for each in own)
            new = Objects.joined([result.whole for result in results if result])
            found, lost = merged(found, np.zeros(len(found), bool), new)
            found = found.take(~lost)
        if coverage:
            began = time.perf_counter()
            outlines, counts, labels_size = _painted(scene, found, core, Path(name))
            seconds += time.perf_counter() - began
            size += labels_size
        else:
            here = found.take(shapely.contains(inside, shapely.centroid(found.outlines)))
            outlines, counts = here.outlines, np.array([weights[s] for s in here.scales])
    lengths = np.array([len(wkb) for wkb in shapely.to_wkb(outlines)], np.int64)
    parts = np.ones(len(outlines)) if coverage else counts  # what is cut is all that lies here
    rows = lengths * parts + ROW_BYTES * counts
    size += float(rows.sum() * _loose(lengths + ROW_BYTES) + INDEX_BYTES * counts.sum())
    return _Found(float(counts.sum()), seconds, size)


def _painted(
    scene: Scene, found: Objects, core: Window, folder: Path
) -> tuple[Geometries, Numbers, int]:
    """Areas into which objects share out a window, how much of each counts, and a raster's bytes.

    One that the window's edge cuts counts half, since its other half lies elsewhere.
    """
    spool = Spool(folder / "objects")
    outlines = shapely.transform(found.outlines, lambda xy: xy - (core.col, core.row))
    spool.put(replace(found, outlines=outlines), np.arange(1, len(found) + 1))
    frame, path = scene.frame.crop(core), folder / "labels.tif"
    ground = Ground(None, lambda _: None, FILL_PX)
    paint(spool, frame, path, ground, best_on_top, lambda: None, request="")
    areas = vectorize(path, simplify_m=SMOOTH_PX * max(frame.pixel_size_m)).geometry.to_numpy()
    bounds = shapely.bounds(shapely.transform(areas, frame.to_pixel)).reshape(-1, 4)
    cut = (bounds[:, :2] < 1).any(1) | (bounds[:, 2:] > (core.width - 1, core.height - 1)).any(1)
    return areas, np.where(cut, 0.5, 1.0), path.stat().st_size


def _loose(rows: npt.NDArray[np.int64]) -> float:
    """How many times their own bytes rows (N,) take, each in one page unless it fills several."""
    pages, room = 0, 0
    for row in rows.tolist():
        whole, rest = divmod(row, PAGE_BYTES)
        if rest > room:
            pages, room = pages + 1, PAGE_BYTES
        pages, room = pages + whole, room - rest
    return float(pages * PAGE_BYTES / rows.sum()) if len(rows) else 1.0


def _encoded(scene: Scene) -> int:
    """How many tiles are in the store, by its files, since grids may be of a country."""
    return sum(1 for _ in Path(scene.store.path, "valid").rglob("c.*"))
