"""The verbs: encode a raster once, segment it as often as you like, look at the result."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import geopandas
import numpy as np
from pyproj import CRS

from geosam.centred import CentredScene
from geosam.decode import decode
from geosam.drawing import MAX_SIDE, draw, view
from geosam.errors import PromptError
from geosam.masks import Mask
from geosam.polygons import vectorize
from geosam.prompts import PromptSet
from geosam.protocol import Model, Progress
from geosam.recipe import Recipe, Stretch
from geosam.scene import Scene, check_scales
from geosam.store_path import is_store
from tiles import FeatureStore, Raster, Window

log = logging.getLogger(__name__)
if TYPE_CHECKING:
    from distributed import Client

VIEW_MARGIN = 0.1  # of the longer side of the polygons' extent


def encode(
    model: Model,
    raster: str | Path,
    store: str | Path | None = None,
    *,
    scales: Sequence[float] | None = None,
    bands: Sequence[int] | None = None,
    client: "Client | None" = None,
    progress: Progress | None = None,
) -> FeatureStore:
    """Encode every tile of a raster that its store does not hold yet.

    Run again after an interruption of any kind, it goes on where it stopped. What a local store
    holds is read first, which takes a few hundredths of the time to encode it: tiles that are
    damaged are encoded again.

    Args:
        model: whose encoder to use.
        raster: any raster GDAL reads, of any size.
        store: folder or fsspec URL of the feature store; None: beside the raster.
        scales: raster px per tile px, powers of two; None: 1 and all coarser ones, up to that at
            which one tile holds the whole raster, so that objects of any size fit a tile.
        bands: one band, or three for red, green and blue; None: see `Stretch.of`.
        client: of a dask cluster, over whose workers the tiles are spread. They open raster, store
            and weights themselves, so these lie where all machines find them under one name. None:
            everything is done here, with the same result.
        progress: called with (done, total) tiles.

    Raises:
        RasterError: the raster cannot be used.
        StoreMismatch: the store holds other features.
        BandError: the raster has no such bands.
        ModelError: there is no grid at one of the scales.
        ClusterError: the cluster was lost, or a worker cannot open what it is to work on.
    """
    scene = Scene.open(model, raster, store=store, bands=bands, client=client)
    chosen = check_scales(scene, scales)
    wanted = [scale for scale in chosen if scales or scale >= 1]
    if "://" not in scene.store.path:
        _drop_damaged(scene.store)
    scene.ensure([tile for s in wanted for tile in scene.store.missing(s)], progress)
    return scene.store


def _drop_damaged(store: FeatureStore) -> None:
    """Make damaged tiles missing; those that another process is writing are left alone."""
    missing = set(store.missing())
    for tile in store.verify():
        if tile not in missing:
            log.warning("Feature store %s: %s is damaged and encoded again.", store.path, tile)
            store.drop([tile])


def segment(  # noqa: PLR0913  # each is a thing people set
    model: Model,
    source: str | Path | FeatureStore,
    prompts: PromptSet | geopandas.GeoDataFrame | str | Path,
    *,
    store: str | Path | None = None,
    bands: Sequence[int] | None = None,
    scales: Sequence[float] | None = None,
    centred: bool = False,
    multimask: bool = False,
    min_area_m2: float = 0.0,
    simplify_m: float | None = None,
    client: "Client | None" = None,
    progress: Progress | None = None,
) -> geopandas.GeoDataFrame:
    """Outline the object of each prompt.

    Works straight on a raster: only the tiles that the prompts need are encoded, and they are kept
    for the next time. N prompts give N rows, in their order.

    Args:
        model: see `load_model`.
        source: a raster, or a feature store made by `encode`.
        prompts: a `PromptSet`, a GeoDataFrame or a vector file (see `PromptSet.from_geodataframe`).
        store: where a raster's features are kept; None: beside the raster.
        bands: one band, or three for red, green and blue; None: see `Stretch.of`.
        scales: raster px per tile px to choose from. None: of a raster all, of a store those that
            it holds tiles of.
        centred: encode a tile in whose middle it lies for each prompt, and keep none, instead of
            using the raster's tiles: the answer depends on the pixels round it and on the stretch,
            not on where tiles fall. Costs the time of an image or more for every prompt, three or
            four for a click.
        multimask: three rows for a single click, best first, told apart by `candidate`.
        min_area_m2: parts smaller than this are left out.
        simplify_m: how far outlines may move to get simpler, see `vectorize`.
        client: of a dask cluster, over whose workers the tiles are spread, see `encode`.
        progress: called with (done, total) steps, a step being a prompt or a tile to encode.

    Returns:
        Polygons in the raster's CRS with the columns of `vectorize`. `status` is "ok"; "clipped":
        part of the prompt was off the raster and left aside; "outside": all of it was; "empty":
        there is nothing, or no data; "truncated": the object goes on beyond the coarsest tile.

    Raises:
        PromptError: the prompts cannot be read, or there is none.
        ProjectionError: a prompt has no place in the raster's CRS.
        RasterError, StoreMismatch, StoreIncomplete, BandError: see `Scene`.
        ClusterError: see `encode`.
    """
    if not isinstance(prompts, PromptSet):
        read = PromptSet.from_geodataframe
        prompts = (
            read(prompts)
            if isinstance(prompts, geopandas.GeoDataFrame)
            else PromptSet.read(prompts)
        )
    if not len(prompts):
        raise PromptError("Prompts: none (expected at least one). Add a point, a box or a polygon.")
    scene = Scene.open(model, source, store=store, bands=bands, client=client)
    if centred:
        scene = CentredScene.of(scene)
    elif is_store(source):
        scales = scales or scene.encoded_scales
    chosen = check_scales(scene, scales)
    order: list[int] = []

    def masks() -> Iterator[Mask]:
        found = decode(scene, prompts, scales=chosen, multimask=multimask, progress=progress)
        for place, mask in found:
            order.append(place)
            yield mask

    polygons = vectorize(masks(), min_area_m2=min_area_m2, simplify_m=simplify_m)
    ranks = np.argsort(np.array(order), kind="stable")
    return polygons.iloc[ranks].reset_index(drop=True)


def preview(
    source: str | Path | FeatureStore,
    polygons: geopandas.GeoDataFrame,
    path: str | Path,
    *,
    prompts: PromptSet | None = None,
    bands: Sequence[int] | None = None,
) -> None:
    """Draw polygons over the part of their raster where they lie, into a PNG.

    Args:
        source: the raster, or a feature store made from it.
        polygons: in any CRS; without any geometry the whole raster is drawn.
        path: the picture, 1024 to 2048 px wide or high; an older one is replaced.
        prompts: to mark as well.
        bands: one band, or three for red, green and blue; None: see `Stretch.of`.

    Raises:
        RasterError: the raster cannot be read.
        BandError: it has no such bands.
        OutputError: the picture cannot be written.
        ProjectionError: polygons or prompts have no place in the raster's CRS.
    """
    if is_store(source):
        store = source if isinstance(source, FeatureStore) else FeatureStore.open(source)
        recipe = Recipe.from_dict(store.meta)
        source, bands = recipe.source, bands or recipe.stretch.bands
    with Raster.open(str(source)) as raster:
        window, scale = _view(raster, polygons)
        stretch = Stretch.of(raster, bands)
        chip = raster.read(window, stretch.bands, scale)
        shown = replace(chip, valid=np.ones_like(chip.valid))  # nodata as it is, not filled
        image = np.ascontiguousarray(np.moveaxis(stretch(shown), 0, 2))
        draw(image, chip.frame, polygons, path, prompts)


def _view(raster: Raster, polygons: geopandas.GeoDataFrame) -> tuple[Window, int]:
    """The part of a raster round polygons, and the scale at which it makes a picture."""
    shapes = polygons.geometry.dropna()
    if not len(shapes):
        height, width = raster.frame.shape
        return view(raster.window, (0, 0, width, height), margin=0.0, side=MAX_SIDE)
    crs = CRS.from_user_input(polygons.crs)
    corners = raster.frame.box_to_pixel(tuple(shapes.total_bounds.tolist()), crs)
    return view(raster.window, corners, margin=VIEW_MARGIN, side=MAX_SIDE)
