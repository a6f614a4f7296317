"""A feature store that remembers: for questions about one place, asked again and again."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from zarr.abc.store import Store

from tiles import FeatureStore, Tile
from tiles.store import Features, Status, Validity

KEPT_BYTES = 64_000_000  # 40 tiles of nano, 7 of SAM 2.1

T = TypeVar("T")


class RecentTiles(FeatureStore):
    """Keeps the tiles that were read last in memory, as a mouse that moves stays among few.

    What is stored of a tile depends on the raster and the model alone, so what is remembered stays
    right; that a tile is missing is never remembered. For one thread.
    """

    def __init__(self, path: str | Path, store: Store, attributes: Mapping[str, Any]) -> None:
        super().__init__(path, store, attributes)
        self._kept: OrderedDict[tuple[str, Tile], Any] = OrderedDict()
        self._bytes = 0

    def __getitem__(self, tile: Tile) -> Features:
        """The features of a tile; see `FeatureStore`."""
        return self._remember("features", tile, super().__getitem__)

    def valid(self, tile: Tile) -> Validity:
        """Validity of a tile's chip; see `FeatureStore`."""
        return self._remember("valid", tile, super().valid)

    def whole(self, tile: Tile) -> Validity:
        """Where all beneath the pixels has data; see `FeatureStore`."""
        return self._remember("whole", tile, super().whole)

    def status(self, tile: Tile) -> Status:
        """Whether a tile is missing, done or empty; see `FeatureStore`."""
        return self._remember("status", tile, super().status)

    def _remember(self, what: str, tile: Tile, read: Callable[[Tile], T]) -> T:
        if (what, tile) not in self._kept:
            found = read(tile)
            if what == "status" and found == "missing":
                return found
            self._kept[what, tile] = found
            self._bytes += getattr(found, "nbytes", 0)
            while self._bytes > KEPT_BYTES and len(self._kept) > 1:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= getattr(oldest, "nbytes", 0)
        self._kept.move_to_end((what, tile))
        known: T = self._kept[what, tile]
        return known
