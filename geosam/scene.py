"""A raster together with its features: what prompts are decoded on."""

import pickle
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from geosam.encoding import Done, encode_tiles
from geosam.errors import ClusterError, ModelError
from geosam.protocol import Features, Model, Progress
from geosam.recipe import Recipe, choose_bands, from_root
from geosam.store_path import default_store, exists, is_store
from geosam.workers import share, spread
from tiles import (
    FeatureStore,
    Frame,
    Raster,
    RasterError,
    StoreIncomplete,
    StoreMismatch,
    Tile,
    TileGrid,
    Window,
)
from tiles.grid import Bounds

if TYPE_CHECKING:
    from distributed import Client

FINEST_SCALE = 0.25
COARSEST_SCALE = 64.0
OVERLAP_PX = 128


@dataclass(frozen=True, slots=True, eq=False)
class EncodedTile:
    """A tile's features, and where it has data; S is the side of the model's image, px.

    Attributes:
        features: see `Model.feature_shape`; None where there is no data at all.
        valid: (S, S) bool, where the tile has data.
        whole: (S, S) bool, where all raster px beneath have data.
    """

    features: Features | None
    valid: npt.NDArray[np.bool_]
    whole: npt.NDArray[np.bool_]


class Scene:
    """A raster's feature store, and the raster itself where it can still be read.

    Attributes:
        model: the model whose features these are.
        store: the features.
        recipe: what they were made from.
        client: of a cluster over whose workers the work is spread, or None.
        keeps: whether tiles stay in the store when they were encoded.
    """

    keeps = True

    def __init__(
        self,
        model: Model,
        store: FeatureStore,
        recipe: Recipe,
        raster: Raster | None,
        *,
        encodes: bool = True,
        client: "Client | None" = None,
    ) -> None:
        self.model = model
        self.store = store
        self.recipe = recipe
        self.client = client
        self._raster = raster
        self._encodes = encodes

    def as_stored(self) -> "Scene":
        """This scene, whose missing tiles are not encoded when they are needed.

        Only those of the finest scale are: a click on a small object needs one, and nobody encodes
        a whole raster at that scale.
        """
        return Scene(
            self.model, self.store, self.recipe, self._raster, encodes=False, client=self.client
        )

    def over(self, store: FeatureStore) -> "Scene":
        """This scene, whose features are read through another store object of the same path."""
        return Scene(
            self.model, store, self.recipe, self._raster, encodes=self._encodes, client=self.client
        )

    @classmethod
    def open(
        cls,
        model: Model,
        source: str | Path | FeatureStore,
        *,
        store: str | Path | None = None,
        bands: Sequence[int] | None = None,
        client: "Client | None" = None,
    ) -> Self:
        """Open a raster with the features it has; or features alone.

        Args:
            model: the model that made or will make the features.
            source: a raster, or a feature store made before (a `.zarr` path or an open store).
            store: where the raster's features are or shall be; None: see `default_store`.
            bands: which bands to look at, see `Stretch.of`.
            client: of a cluster that shall do the work.

        Raises:
            RasterError: the raster cannot be used.
            StoreUnwritable: there is no store yet, and none can be made.
            StoreMismatch: the store was made from another raster, by another model or in another
                precision, with other bands or another grid.
            BandError: the raster has no such bands.
        """
        if isinstance(source, FeatureStore) or is_store(source):
            features = source if isinstance(source, FeatureStore) else FeatureStore.open(source)
            recipe = Recipe.from_dict(features.meta)
            _expect_model(features, recipe, model)
            return cls(model, features, recipe, None, client=client)
        raster = Raster.open(source)
        path = store or default_store(source, model, raster, bands)
        grids = ladder(raster, model.size)
        if not exists(path):
            recipe = Recipe.of(model, raster, bands)
            try:
                made = FeatureStore.create(
                    path, grids, raster.frame, model.feature_shape, recipe.to_dict()
                )
                return cls(model, made, recipe, raster, client=client)
            except StoreMismatch:
                if not exists(path):  # else another process has made it at this moment
                    raise
        expect = {"raster": raster.fingerprint, "bands": list(choose_bands(raster, bands))}
        features = FeatureStore.open(path, expect=expect)
        recipe = Recipe.from_dict(features.meta)
        _expect_model(features, recipe, model)
        found, wanted = ([_kind(grid) for grid in some] for some in (features.grids, grids))
        _expect(features, "grids", found, wanted, "Encode into a new store")
        return cls(model, features, recipe, raster, client=client)

    @property
    def frame(self) -> Frame:
        """The raster's frame."""
        return self.store.frame

    @property
    def encoded_scales(self) -> tuple[float, ...]:
        """Scales at which at least one tile is in the store, finest first."""
        counts = ((grid, len(self.store.missing(grid.scale))) for grid in self.store.grids)
        return tuple(grid.scale for grid, missing in counts if missing < len(grid))

    def locate(self, scale: float, bounds: Bounds) -> Tile:
        """The tile that sees most context round an object, see `TileGrid.locate`."""
        return self.store.grid(scale).locate(bounds)

    def grid(self, scale: float, around: Window) -> TileGrid:
        """The tiles at a scale that see a window."""
        return self.store.grid(scale)

    def encoded(self, tiles: Iterable[Tile]) -> list[EncodedTile]:
        """Tiles that are in the store.

        Raises:
            StoreIncomplete: one is missing.
            StoreDamaged: what is stored of one is not what was written.
        """
        return [
            EncodedTile(
                None if self.store.status(tile) == "empty" else self.store[tile],
                self.store.valid(tile),
                self.store.whole(tile),
            )
            for tile in tiles
        ]

    def missing(self, tiles: Iterable[Tile]) -> list[Tile]:
        """Those of the tiles that the store lacks."""
        return [tile for tile in tiles if self.store.status(tile) == "missing"]

    def validity(self, window: Window) -> npt.NDArray[np.bool_] | None:
        """Where a window of the raster has data, (height, width); None if the raster is gone."""
        try:
            raster = self.readable("its nodata")
        except (RasterError, StoreIncomplete):
            return None
        return raster.read(window, self.recipe.stretch.bands).valid

    def ensure(self, tiles: Iterable[Tile], progress: Progress | None = None) -> None:
        """Encode those of the tiles that the store lacks.

        Raises:
            StoreIncomplete: tiles are missing, and the raster is gone or they shall stay so.
            RasterError: the raster cannot be read, or has changed since the store was made.
            StoreUnwritable: the disk is full, or the store cannot be written.
        """
        missing = self.missing(tiles)
        refused = [tile for tile in missing if not (self._encodes or tile.scale == FINEST_SCALE)]
        if refused:
            raise StoreIncomplete(
                f"{self.store.path}: {refused[0]} was never encoded (expected it, for an answer "
                "without encoding). Encode it first."
            )
        if not missing:
            return
        size = share(len(missing), self.client)
        pieces = (missing[start : start + size] for start in range(0, len(missing), size))
        encode = Scene._encode_rest if self.client else Scene._encode
        unreadable: dict[Tile, RasterError] = {}
        done = 0
        with closing(spread(encode, self, pieces, self.client)) as results:
            for tile, error in results:
                if error:
                    unreadable[tile] = error
                    continue
                done += 1
                if progress:
                    progress(done, len(missing))
        _complain(unreadable)
        if self.client:
            self._check_arrived(set(missing))

    def _encode(self, tiles: Sequence[Tile]) -> Iterator[Done]:
        """Encode tiles here."""
        raster = self.readable(tiles[0])
        return encode_tiles(self.model, raster, self.store, self.recipe.stretch, tiles)

    def _encode_rest(self, tiles: Sequence[Tile]) -> Iterator[Done]:
        """Encode what a worker that died has left of some tiles."""
        missing = self.missing(tiles)
        yield from ((tile, None) for tile in set(tiles).difference(missing))
        if missing:
            yield from self._encode(missing)

    def _check_arrived(self, tiles: set[Tile]) -> None:
        """See that what workers encoded is in the store that is open here."""
        for scale in {tile.scale for tile in tiles}:
            for tile in tiles.intersection(self.store.missing(scale)):
                raise ClusterError(
                    f"{self.store.path}: {tile} was encoded by a worker and is not here (expected "
                    "it). Put the store on a disk or URL that all machines see under one name."
                )

    def address(self) -> "Address":
        """Where another process finds this scene."""
        try:
            raster = from_root(self.readable("its nodata").source)
        except (RasterError, StoreIncomplete):
            raster = None
        return Address(pickle.dumps(self.model), from_root(self.store.path), raster)

    def readable(self, wanted: object) -> Raster:
        """The raster, of which something is wanted that the store does not hold."""
        if self._raster is None:
            try:
                raster = Raster.open(self.recipe.source)
            except RasterError as error:
                raise StoreIncomplete(
                    f"{self.store.path}: {wanted} was never encoded and its raster "
                    f"{self.recipe.source} cannot be opened (expected either). Give the raster "
                    "itself and this store."
                ) from error
            _expect_raster(raster, self.recipe, self.store)
            self._raster = raster
        return self._raster


@dataclass(frozen=True, slots=True)
class Address:
    """Where a scene is, for a process on another machine.

    Attributes:
        model: pickled, which for a loaded one is how it was loaded.
        store: path or URL of the features.
        raster: path or URL; None if it is gone.
    """

    model: bytes
    store: str
    raster: str | None

    def open(self) -> Scene:
        """The scene.

        Raises:
            ModelError, WeightsError: the model is not here, or not the same.
            StoreMismatch: the store is not here.
            RasterError: the raster is not here, or not the same.
        """
        model = pickle.loads(self.model)
        store = FeatureStore.open(self.store)
        recipe = Recipe.from_dict(store.meta)
        if self.raster is None:
            return Scene(model, store, recipe, None)
        raster = Raster.open(self.raster)
        _expect_raster(raster, recipe, store)
        return Scene(model, store, recipe, raster)


def ladder(raster: Raster, size: int) -> tuple[TileGrid, ...]:
    """The tile grids of a raster: scales in powers of two, up to one tile for the whole raster.

    All are anchored at the origin of the CRS, so that a raster and its clips share tiles; those
    that can be read from an overview at that pixel of the overview.
    """
    overlap = min(OVERLAP_PX, size // 4)
    grids = []
    scale = FINEST_SCALE
    while True:
        step = max((f for f in raster.overviews if scale % f == 0), default=1)
        col, row = (edge // step * step for edge in raster.frame.anchor)
        grids.append(TileGrid(raster.frame.shape, size, overlap, scale, (col, row)))
        if (scale >= 1 and len(grids[-1]) == 1) or scale >= COARSEST_SCALE:
            return tuple(grids)
        scale *= 2


def _kind(grid: TileGrid) -> tuple[int, int, float]:
    """What of a grid must be as it would be today; its anchor depends on overviews made since."""
    return grid.size, grid.overlap, grid.scale


def _expect_raster(raster: Raster, recipe: Recipe, store: FeatureStore) -> None:
    if raster.fingerprint != recipe.raster:
        raise RasterError(
            f"{raster.source}: fingerprint {raster.fingerprint} (expected {recipe.raster}, from "
            f"which {store.path} was made). Encode the changed raster into a new store."
        )


def _complain(unreadable: dict[Tile, RasterError]) -> None:
    for tile, error in unreadable.items():
        others = f" So are {len(unreadable) - 1} other tiles." if len(unreadable) > 1 else ""
        raise RasterError(f"{tile}: {error}{others}") from error


def _expect_model(store: FeatureStore, recipe: Recipe, model: Model) -> None:
    cure = f"Load the model in {recipe.precision}"
    _expect(store, "precision", recipe.precision, model.precision, cure)
    _expect(store, "model", recipe.model, model.id, "Load that model")


def _expect(store: FeatureStore, what: str, found: object, wanted: object, cure: str) -> None:
    if found != wanted:
        raise StoreMismatch(
            f"{store.path}: made with {what} {found} (expected {wanted}). {cure}, or encode again."
        )


def check_scales(scene: Scene, scales: Sequence[float] | None) -> tuple[float, ...]:
    """Scales that the scene has grids for, sorted; None stands for all.

    Raises:
        ModelError: there is no grid at a scale.
    """
    known = scene.store.scales
    unknown = sorted(set(scales or ()) - set(known))
    if unknown:
        raise ModelError(
            f"{scene.store.path}: no grid at scale {unknown[0]:g} (expected some of "
            f"{', '.join(f'{scale:g}' for scale in known)}). Choose among them."
        )
    return tuple(sorted(set(scales))) if scales else known
