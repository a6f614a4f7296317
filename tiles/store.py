"""Features of tiles, on disk or in an object store."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from zarr.abc.store import Store

from tiles.errors import (
    StoreDamaged,
    StoreIncomplete,
    StoreMismatch,
    StoreUnreachable,
    StoreUnwritable,
)
from tiles.frame import Frame
from tiles.grid import Tile, TileGrid
from tiles.layout import (
    FORMAT,
    VERSION,
    TileArray,
    create_layout,
    features_path,
    open_layout,
    plain_json,
    valid_path,
)

Features = npt.NDArray[np.float16]
Validity = npt.NDArray[np.bool_]
Status = Literal["missing", "done", "empty"]
Progress = Callable[[int, int], None]
"""Called with (done, total). Whatever it raises cancels the work."""

_WHOLE = 2  # how validity is stored: 0 not valid, 1 valid, 2 whole as well


class FeatureStore:
    """One array of features for each tile of some grids over one raster, in a Zarr v3 group.

    Each grid has an array of features, `features/<scale>`, and one of validity, `valid/<scale>`,
    and in each of them a tile is one chunk with a checksum, so any number of processes may put
    tiles at once. The chunk of validity is written last: a tile is in the store when that chunk
    is, whatever became of its writer. A tile without a valid pixel is empty: it is in the store,
    and has no features.

    Whatever asks a store on a URL raises StoreUnreachable if that gives no answer.

    Attributes:
        path: The local folder or URL.
        frame: The raster's frame.
        grids: The tile grids, finest first.
        feature_shape: The shape of the features of one tile.
        meta: What the features depend on, as JSON values. The store does not look into it.
    """

    def __init__(self, path: str | Path, store: Store, attributes: Mapping[str, Any]) -> None:
        self.path = str(path)
        self.frame = Frame.from_dict(attributes["frame"])
        self.grids = tuple(TileGrid.from_dict(grid) for grid in attributes["grids"])
        self.feature_shape: tuple[int, ...] = tuple(attributes["feature_shape"])
        self.meta: dict[str, Any] = attributes["meta"]
        self._writable = not store.read_only
        self._grids = {grid.scale: grid for grid in self.grids}
        self._features = {scale: TileArray(store, features_path(scale)) for scale in self._grids}
        self._valid = {scale: TileArray(store, valid_path(scale)) for scale in self._grids}

    @classmethod
    def create(
        cls,
        path: str | Path,
        grids: Iterable[TileGrid],
        frame: Frame,
        feature_shape: Sequence[int],
        meta: Mapping[str, Any],
    ) -> Self:
        """Create a store without tiles, and open it.

        A local store appears whole or not at all, and of two creators one is refused. In an
        object store that cannot be promised: create it before the workers start.

        Args:
            path: A local folder that does not exist yet, or a URL that fsspec knows.
            grids: Tile grids over the frame, each at a scale of its own.
            frame: The raster's frame.
            feature_shape: The shape of the features of one tile.
            meta: What the features depend on, as JSON values.

        Raises:
            StoreMismatch: If something is at the path already.
            StoreUnwritable: If nothing can be written there.
            ValueError: If the grids are not over the frame or share a scale, or `meta` is not JSON.
        """
        attributes = {
            "format": FORMAT,
            "version": VERSION,
            "frame": frame.to_dict(),
            "grids": [grid.to_dict() for grid in _finest_first(grids, frame)],
            "feature_shape": list(feature_shape),
            "meta": plain_json(meta),
        }
        create_layout(path, attributes)
        return cls.open(path)

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        expect: Mapping[str, Any] | None = None,
        writable: bool = True,
    ) -> Self:
        """Open a store.

        Args:
            path: A local folder, or a URL that fsspec knows.
            expect: What `meta` must say, key by key; a key that is not named may say anything.
            writable: Whether tiles may be put and dropped.

        Raises:
            StoreMismatch: If there is no store at the path, it is of a newer version, or its
                `meta` is not as expected.
            StoreDamaged: If its arrays are gone.
        """
        store, attributes = open_layout(path, writable=writable)
        meta = attributes["meta"]
        for key, wanted in plain_json(expect or {}).items():
            if key not in meta or meta[key] != wanted:
                found = json.dumps(meta[key]) if key in meta else "not there"
                raise StoreMismatch(
                    f"Feature store {path}: {key} is {found} (expected {json.dumps(wanted)}). "
                    "Use the store that was made for it, or encode into a new one."
                )
        return cls(path, store, attributes)

    @property
    def scales(self) -> tuple[float, ...]:
        """The scales of the grids, finest first."""
        return tuple(self._grids)

    def grid(self, scale: float) -> TileGrid:
        """The grid at a scale.

        Raises:
            StoreIncomplete: If the store has none.
        """
        if scale not in self._grids:
            known = ", ".join(f"{scale:g}" for scale in self.scales)
            raise StoreIncomplete(
                f"Feature store {self.path}: nothing at scale {scale:g} (expected one of {known}). "
                "Encode the raster at that scale."
            )
        return self._grids[scale]

    def put(
        self,
        tile: Tile,
        features: npt.NDArray[Any] | None,
        valid: Validity,
        whole: Validity | None = None,
    ) -> None:
        """Store a tile, in place of what was stored of it before.

        Args:
            tile: A tile of one of the grids.
            features: Of the store's feature shape, kept as float16; None for an empty tile.
            valid: Validity of the tile's chip, of shape `tile.shape`.
            whole: Where all that lies beneath a pixel has data, see `Chip`; None: where valid.

        Raises:
            StoreUnwritable: If nothing can be written; the tile is missing then.
            ValueError: If a shape is wrong, a feature is not finite as float16, or there are
                features without valid pixels or valid pixels without features.
        """
        self._check_writable()
        self._check(tile)
        levels = self._checked(tile, valid).astype(np.uint8)
        levels += levels & self._checked(tile, valid if whole is None else whole)
        if (features is None) == bool(valid.any()):
            raise ValueError(
                f"{tile}: {'no' if features is None else 'some'} features and {valid.sum()} valid "
                "pixels (expected features just where there are valid pixels)."
            )
        half = None if features is None else self._half(tile, features)
        if not self._may_stay(tile, levels):
            self.drop([tile])
        try:
            if half is None:
                self._features[tile.scale].delete(tile.index)
            else:
                self._features[tile.scale].write(tile.index, half)
            self._valid[tile.scale].write(tile.index, levels)
        except StoreUnreachable:
            raise
        except OSError as error:
            raise self._unwritable(tile, error) from error

    def __getitem__(self, tile: Tile) -> Features:
        """The features of a tile, float16.

        Raises:
            StoreIncomplete: If the tile is missing or empty.
            StoreDamaged: If what is stored is not what was written.
        """
        valid = self.valid(tile)
        if not valid.any():
            raise StoreIncomplete(
                f"Feature store {self.path}: {tile} is empty (expected valid pixels). "
                "The raster has no data there."
            )
        return self._read(self._features, tile)

    def valid(self, tile: Tile) -> Validity:
        """Validity of a tile's chip, of shape `tile.shape`.

        Raises:
            StoreIncomplete: If the tile is missing.
            StoreDamaged: If what is stored is not what was written.
        """
        valid: Validity = self._validity(tile) > 0
        return valid

    def whole(self, tile: Tile) -> Validity:
        """Where all that lies beneath the pixels of a tile's chip has data; see `valid`."""
        whole: Validity = self._validity(tile) == _WHOLE
        return whole

    def _validity(self, tile: Tile) -> npt.NDArray[np.uint8]:
        if self.status(tile) == "missing":
            raise StoreIncomplete(
                f"Feature store {self.path}: {tile} is missing (expected to be stored). "
                "Encode the raster to the end."
            )
        return self._read(self._valid, tile)

    def status(self, tile: Tile) -> Status:
        """Whether a tile is missing, done, or empty, which is done but without features.

        Raises:
            StoreDamaged: If it should have features and they are gone.
        """
        self._check(tile)
        if not self._valid[tile.scale].has(tile.index):
            return "missing"
        if self._features[tile.scale].has(tile.index):
            return "done"
        if self._read(self._valid, tile).any():
            raise self._damaged(tile, "its features are gone")
        return "empty"

    def missing(self, scale: float | None = None) -> list[Tile]:
        """The tiles still to be put. Lists what is there and reads nothing.

        Args:
            scale: Of which grid; None: of all.
        """
        missing = []
        for grid in self.grids if scale is None else (self.grid(scale),):
            stored = self._valid[grid.scale].indices()
            missing += [tile for tile in grid if tile.index not in stored]
        return missing

    def verify(self, progress: Progress | None = None) -> list[Tile]:
        """Read every stored tile, and list those that are damaged or half written.

        Run it while nobody writes: a tile that is being written is half written. Drop what it
        lists and put it again.
        """
        written = [
            grid[index]
            for grid in self.grids
            for index in sorted(
                self._valid[grid.scale].indices() | self._features[grid.scale].indices()
            )
        ]
        bad = []
        for done, tile in enumerate(written, start=1):
            if not self._is_whole(tile):
                bad.append(tile)
            if progress:
                progress(done, len(written))
        return bad

    def drop(self, tiles: Iterable[Tile]) -> None:
        """Make tiles missing.

        Raises:
            StoreUnwritable: If they cannot be deleted.
        """
        self._check_writable()
        for tile in tiles:
            self._check(tile)
            try:
                self._valid[tile.scale].delete(tile.index)
                self._features[tile.scale].delete(tile.index)
            except StoreUnreachable:
                raise
            except OSError as error:
                raise self._unwritable(tile, error) from error

    def _may_stay(self, tile: Tile, levels: npt.NDArray[np.uint8]) -> bool:
        """Whether a tile need not go missing for another to take its place.

        Features of the same validity can be replaced in one step: who reads meanwhile, because
        another process has put the same tile, sees the one or the other.
        """
        valid = self._valid[tile.scale]
        try:
            return not valid.has(tile.index) or np.array_equal(valid.read(tile.index), levels)
        except ValueError:
            return False

    def _check_writable(self) -> None:
        if not self._writable:
            raise ValueError(f"Feature store {self.path}: opened to read (expected writable=True).")

    def _check(self, tile: Tile) -> None:
        grid = self.grid(tile.scale)
        if grid[tile.index] != tile:
            raise ValueError(f"{tile!r}: of another grid (expected {grid[tile.index]!r}).")

    def _read(self, arrays: Mapping[float, TileArray], tile: Tile) -> npt.NDArray[Any]:
        try:
            return arrays[tile.scale].read(tile.index)
        except ValueError as error:
            raise self._damaged(tile, str(error)) from error

    def _is_whole(self, tile: Tile) -> bool:
        try:
            status = self.status(tile)
            if status == "done":
                self._read(self._features, tile)
            return (status == "done") == bool(self.valid(tile).any())
        except (StoreDamaged, StoreIncomplete):
            return False

    def _damaged(self, tile: Tile, found: str) -> StoreDamaged:
        return StoreDamaged(
            f"Feature store {self.path}: {tile} is damaged (expected what was written): {found}. "
            "Run `geosam check --repair` on the store to encode it again."
        )

    def _unwritable(self, tile: Tile, error: OSError) -> StoreUnwritable:
        return StoreUnwritable(
            f"Feature store {self.path}: {tile}: {error.strerror or error} (expected it written). "
            "Make room, or the store writable, and run again: tiles that are done are kept."
        )

    def _checked(self, tile: Tile, valid: Validity) -> Validity:
        if valid.shape != tile.shape or valid.dtype != np.bool_:
            raise ValueError(
                f"{tile}: validity {valid.dtype} {valid.shape} (expected bool {tile.shape})."
            )
        return valid

    def _half(self, tile: Tile, features: npt.NDArray[Any]) -> Features:
        if features.shape != self.feature_shape:
            raise ValueError(f"{tile}: features {features.shape} (expected {self.feature_shape}).")
        with np.errstate(over="ignore"):
            half = features.astype(np.float16, copy=False)
        if not np.isfinite(half).all():
            raise ValueError(f"{tile}: a feature is not finite as float16 (expected all to be).")
        return half


def _finest_first(grids: Iterable[TileGrid], frame: Frame) -> list[TileGrid]:
    ordered = sorted(grids, key=lambda grid: grid.scale)
    scales = [grid.scale for grid in ordered]
    if not scales or len(set(scales)) < len(scales):
        raise ValueError(f"Grids at scales {scales}: (expected at least one, all different).")
    for grid in ordered:
        if grid.shape != frame.shape:
            raise ValueError(f"Grid shape: {grid.shape} (expected the frame's, {frame.shape}).")
    return ordered
