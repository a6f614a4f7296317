"""Every object of a scene: tiles first, then the whole objects, as they are settled."""

import filecmp
import hashlib
import json
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import geopandas
import numpy as np
import numpy.typing as npt
import pandas
import pyogrio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError
from shapely import GeometryType

from geosam.automatic.candidates import RELAXED, STRICT
from geosam.automatic.landmarks import Landmarks
from geosam.automatic.objects import Geometries, Objects
from geosam.automatic.painting import (
    BLOCK,
    Ground,
    Spool,
    answers,
    best_on_top,
    paint,
    smallest_on_top,
)
from geosam.automatic.regular import check_regular
from geosam.automatic.regular import regular as squared
from geosam.automatic.sweep import sweep
from geosam.automatic.tile_work import Asked, Plan, ask, keep, result_of, work_on
from geosam.automatic.tiling import Grids, Tiling
from geosam.cache import cache_folder
from geosam.centred import CentredScene
from geosam.drafts import draft, scratch
from geosam.errors import OutputExists, PromptError
from geosam.label_raster import trace_down
from geosam.placement import to_pixels
from geosam.polygons import measures_m
from geosam.prompts import Prompt
from geosam.protocol import Model, Progress
from geosam.scene import FINEST_SCALE, Scene, check_scales
from geosam.store_path import is_store
from geosam.workers import share, spread
from tiles import FeatureStore, Tile

if TYPE_CHECKING:
    from distributed import Client

DENSITY = 32  # points along a tile's side
FILL_PX = 16  # gaps between objects up to twice as wide are closed where all ground is covered
SMOOTH_PX = 1.0  # what `vectorize` may cut off a corner of the pixels' outline, see there

VERSION = 4  # of what the files of the work folder mean


@dataclass(frozen=True, slots=True)
class Painting:
    """What the label raster is for.

    Attributes:
        labels: where it shall stay; None: nowhere.
        coverage: whether all ground is shared out by it.
        request: all that it depends on, in short.
    """

    labels: Path | None
    coverage: bool
    request: str

    @property
    def wanted(self) -> bool:
        """Whether there shall be one."""
        return self.coverage or self.labels is not None


@dataclass(frozen=True, slots=True)
class Wishes:
    """Which objects are wanted, once they are known."""

    min_area_m2: float
    max_area_m2: float
    area: shapely.Geometry | None  # raster px
    regular: bool
    model: str


def everything(  # noqa: PLR0913  # each is a thing people set
    model: Model,
    source: str | Path | FeatureStore,
    *,
    store: str | Path | None = None,
    bands: Sequence[int] | None = None,
    scales: Sequence[float] | None = None,
    small: bool = False,
    area: geopandas.GeoDataFrame | str | Path | None = None,
    min_area_m2: float = 0.0,
    max_area_m2: float = np.inf,
    density: int = DENSITY,
    centred: bool = False,
    coverage: bool = False,
    regular: bool = False,
    labels: str | Path | None = None,
    client: "Client | None" = None,
    progress: Progress | None = None,
) -> Generator[geopandas.GeoDataFrame, None, None]:
    """Outline every object of a scene, whole across tiles and scales.

    Every tile is prompted at the points of a lattice. Tiles that are done are kept in a folder
    beside the features, so that a run that was killed, or asks for other sizes, goes on from them.
    The objects come in batches, from the top down, and each is written by `write` as it comes::

        geosam.write(geosam.everything(model, "ortho.tif"), "objects.gpkg")

    Args:
        model: see `load_model`.
        source: a raster, or a feature store made by `encode`.
        store: where a raster's features are kept; None: beside the raster.
        bands: one band, or three for red, green and blue; None: see `Stretch.of`.
        scales: raster px per tile px; None: 1 and all coarser ones.
        small: also look at scale 1/4, for objects of 8 to 24 px; takes about five times as long.
        area: only objects that reach into these polygons, or those of a vector file, in any CRS;
            None: everywhere.
        min_area_m2: objects smaller than this are left out.
        max_area_m2: objects larger than this are left out.
        density: points along the side of a tile; at scale 1/4 half as many.
        centred: lay tiles round what stands out in the image, encode them for this run and keep
            none, instead of those on a grid. Then what is found does not depend on where tiles
            fall, nor on where the raster starts and ends, a tile's width from its edges. Takes
            about twice as long with `nano`, longer with larger models.
        coverage: share out the ground among the objects: without overlaps, neighbours having the
            same border, and with less sure objects where there are no sure ones. Else objects may
            overlap, as a tree does the garden it stands in.
        regular: outlines with right angles, for buildings.
        labels: also write a raster (uint32, tiled) in which each pixel has the id of its object, of
            the smallest one where objects overlap, 0 for none.
        client: of a dask cluster, over whose workers the tiles are spread, see `encode`.
        progress: called with (done, total) tiles, and blocks of the label raster; with the same
            number again for each tile that is encoded here; before, with (0, total) blocks in which
            landmarks are looked for. What it raises ends the run.

    Yields:
        Polygons in the raster's CRS with id (1, 2, ...), status ("ok", or "truncated" where the
        object goes on beyond the coarsest tile), score, stability, area_m2, perimeter_m, tile,
        scale and model. At least one batch, maybe empty.

    Raises:
        RasterError, StoreMismatch, StoreIncomplete, BandError, ModelError, ClusterError: see
            `segment`.
        PromptError: the area of interest is no polygon, or lies off the raster.
        OutputExists: there is a file named as the label raster shall be, and it is not what the
            same request made before.
        OutputError, StoreUnwritable: the disk is full, or something else cannot be written.
        ValueError: a number is out of its range.
    """
    if not 1 <= density <= model.size:
        raise ValueError(f"density: {density} (expected 1 to {model.size} points a tile's side).")
    if not 0 <= min_area_m2 <= max_area_m2:
        raise ValueError(
            f"min_area_m2 and max_area_m2: {min_area_m2} and {max_area_m2} (expected 0 or more, "
            "and the first not above the second)."
        )
    if regular and coverage:
        raise ValueError(
            "regular and coverage: both (expected one: squared outlines would overlap)."
        )
    if regular:
        check_regular()
    scene = Scene.open(model, source, store=store, bands=bands, client=client)
    asked = scales
    if scales is None:
        known = scene.encoded_scales if is_store(source) and not centred else scene.store.scales
        scales = [scale for scale in known if scale >= 1]
    if small:
        scales = [FINEST_SCALE, *scales]
    chosen = check_scales(scene, scales)
    shape = None if area is None else _on_raster(area, scene)
    tiling: Tiling
    if centred:
        if asked is None:  # so that a tile round any place on the raster holds all of it
            chosen = (*chosen, 2 * chosen[-1])
        own = CentredScene.of(scene)
        scene, tiling = own, Landmarks(own, chosen, shape, progress)
    else:
        tiling = Grids(scene, chosen[-1])
    tiers = RELAXED if coverage else STRICT
    key = _key(scene, chosen, density, coverage, shape)
    plan = Plan(
        scene, chosen, tiling, max(1, model.size // density), tiers, shape,
        work_folder(scene.store.path, key),
    )  # fmt: skip
    wishes = Wishes(min_area_m2, max_area_m2, shape, regular, model.id)
    request = f"{key} {min_area_m2:g} {max_area_m2:g} {regular}"
    if labels is not None and Path(labels).exists() and not answers(Path(labels), request):
        raise _taken(labels)  # while one that a run left which was killed soon after is no harm
    painting = Painting(Path(labels) if labels else None, coverage, request)
    return _run(plan, wishes, painting, progress)


def work_folder(store: str, key: str) -> Path:
    """Where the results of a store's tiles are kept: beside it, or in the cache if it is remote."""
    name = f"{store.rstrip('/').rsplit('/', 1)[-1].removesuffix('.features.zarr')}.{key}.objects"
    return cache_folder() / name if "://" in store else Path(store).with_name(name)


def _taken(labels: str | Path) -> OutputExists:
    return OutputExists(f"{labels}: exists already (expected a new file). Choose another name.")


def _run(
    plan: Plan, wishes: Wishes, painting: Painting, progress: Progress | None
) -> Generator[geopandas.GeoDataFrame, None, None]:
    rows = {scale: list(plan.rows(scale)) for scale in plan.scales}
    height, width = plan.scene.frame.shape
    blocks = -(-height // BLOCK) * -(-width // BLOCK) if painting.wanted else 0
    total, done = sum(len(row) for some in rows.values() for row in some) + blocks, 0

    def advance(steps: int = 1) -> None:
        nonlocal done
        done += steps
        if progress:
            progress(done, total)

    for some in rows.values():
        _work_on_all(some, plan, advance)
    yield _table(Objects.none(), np.empty(0, np.int64), plan, wishes)
    number = 0
    with scratch(plan.folder / "objects") as folder:
        spool = Spool(folder)
        for objects in sweep(plan):
            table, kept = _wanted(objects, number, plan, wishes)
            number += len(kept)
            if painting.wanted:
                spool.put(kept, table["id"].to_numpy())
            if not painting.coverage:
                yield table
        if not painting.wanted:
            return
        with draft(painting.labels or plan.folder / "labels.tif") as place:
            ground = Ground(plan.area, plan.scene.validity, FILL_PX if painting.coverage else 0)
            order = best_on_top if painting.coverage else smallest_on_top
            paint(spool, plan.scene.frame, place, ground, order, advance, request=painting.request)
            if painting.coverage:
                yield from _partition(place, spool, plan, wishes)
            labels = painting.labels
            if labels and labels.exists() and not filecmp.cmp(labels, place, shallow=False):
                raise _taken(labels)


def _work_on_all(rows: Sequence[Sequence[Tile]], plan: Plan, advance: Callable[..., None]) -> None:
    """Have a result of every tile of a scale; what an earlier run left is not made again.

    Each tile that is encoded here is a step of 0, so that a hook can stop the work there.
    """
    missing = [[tile for tile in row if result_of(tile, plan) is None] for row in rows]
    total, client = sum(map(len, missing)), plan.scene.client
    advance(sum(map(len, rows)) - total)
    size = share(total, client)

    def pieces() -> Iterator[list[Asked]]:
        for row in missing:
            if client is None:
                plan.scene.ensure(row, lambda _done, _total: advance(0))
            for start in range(0, len(row), size):
                yield [ask(tile, plan) for tile in row[start : start + size]]

    with closing(spread(work_on, plan.scene, pieces(), client)) as results:
        for tile, arrays in results:
            keep(tile, arrays, plan)
            advance()


def _wanted(
    objects: Objects, number: int, plan: Plan, wishes: Wishes
) -> tuple[geopandas.GeoDataFrame, Objects]:
    """The objects that were asked for, numbered on from a number; as a table too."""
    if wishes.area is not None:
        objects = objects.take(shapely.intersects(wishes.area, objects.outlines))
    if wishes.regular:
        objects = replace(objects, outlines=squared(objects.outlines, plan.scene.frame))
    table = _table(objects, np.arange(len(objects)), plan, wishes)
    areas = table["area_m2"].to_numpy()
    fits = ~((areas < wishes.min_area_m2) | (areas > wishes.max_area_m2))  # NaN is neither
    table = table[fits].reset_index(drop=True)
    table["id"] = np.arange(number + 1, number + 1 + len(table))
    return table, objects.take(fits)


def _table(
    objects: Objects,
    ids: npt.NDArray[np.int64],
    plan: Plan,
    wishes: Wishes,
    shapes: Geometries | None = None,
) -> geopandas.GeoDataFrame:
    """Objects with their ids, and with other outlines than their own, in the CRS, if any."""
    frame = plan.scene.frame
    if shapes is None:
        shapes = shapely.transform(objects.outlines, frame.to_world)
    areas, perimeters = _measures(shapes, plan)
    names = [
        f"{scale:g}/{row}/{col}"
        for scale, (row, col) in zip(objects.scales, objects.tiles.tolist(), strict=True)
    ]
    columns = pandas.DataFrame(
        {
            "id": ids,
            "status": np.where(objects.truncated, "truncated", "ok"),
            "score": objects.scores,
            "stability": objects.stabilities,
            "area_m2": areas,
            "perimeter_m": perimeters,
            "tile": names,
            "scale": objects.scales,
            "model": wishes.model,
        }
    )
    columns = columns.astype(dict.fromkeys(("status", "tile", "model"), "str"))
    return geopandas.GeoDataFrame(columns, geometry=shapes, crs=frame.crs)


def _measures(shapes: npt.NDArray[np.object_], plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Areas and perimeters of (N,) polygons and multipolygons in the raster's CRS."""
    parts, owners = shapely.get_parts(shapes, return_index=True)
    return tuple(  # type: ignore[return-value]  # two
        np.bincount(owners, values, minlength=len(shapes)).astype(np.float64)
        for values in measures_m(parts, plan.scene.frame.crs)
    )


def _partition(
    labels: Path, spool: Spool, plan: Plan, wishes: Wishes
) -> Iterator[geopandas.GeoDataFrame]:
    """The areas of a label raster with what is known of the objects that they come from."""
    smooth_m = SMOOTH_PX * max(plan.scene.frame.pixel_size_m)
    for found, areas in trace_down(labels, simplify_m=smooth_m):
        ids = np.array(found, np.int64)
        yield _table(spool.labelled(ids), ids, plan, wishes, areas)


def _on_raster(area: geopandas.GeoDataFrame | str | Path, scene: Scene) -> shapely.Geometry:
    """An area of interest in raster px.

    Raises:
        PromptError: it cannot be read, is no polygon, or lies off the raster.
    """
    if not isinstance(area, geopandas.GeoDataFrame):
        try:
            area = pyogrio.read_dataframe(area)
        except (DataSourceError, DataLayerError) as error:
            raise PromptError(f"{area}: {error} (expected a readable vector layer).") from error
    shapes = area.geometry.dropna().to_numpy()
    kinds = set(shapely.get_type_id(shapes).tolist())
    if not kinds or kinds - {GeometryType.POLYGON, GeometryType.MULTIPOLYGON}:
        raise PromptError("Area of interest: not polygons alone (expected polygons).")
    parts = shapely.get_parts(shapely.union_all(shapely.make_valid(shapes)))
    polygons = parts[shapely.get_type_id(parts) == GeometryType.POLYGON]
    whole = Prompt("area of interest", mask=shapely.MultiPolygon(polygons.tolist()))
    placed = to_pixels(whole, area.crs, scene.frame)
    if placed is None or placed.mask is None:
        raise PromptError(
            "Area of interest: off the raster (expected to share ground with it). Check its CRS."
        )
    return placed.mask


def _key(
    scene: Scene,
    scales: tuple[float, ...],
    density: int,
    coverage: bool,
    area: shapely.Geometry | None,
) -> str:
    """A name for all that tiles' results depend on."""
    about = {
        "version": VERSION,
        "recipe": scene.recipe.to_dict() | {"source": ""},
        "scales": scales,
        "density": density,
        "coverage": coverage,
        "kept": scene.keeps,
        "area": None if area is None else shapely.to_wkb(area, hex=True),
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:8]
