"""A scene that is encoded anew round each prompt, instead of having its tiles on a grid.

A network answers a little differently where an object lies elsewhere in its tile. Here it always
lies in the middle, so the answer depends on the pixels round it, and on how their values become
grey levels: not on where tiles fall, nor on where the raster starts and ends.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np

from geosam.scene import Address, EncodedTile, Scene
from tiles import Chip, RasterError, Tile, TileGrid, Window
from tiles.grid import Bounds

ROUNDING_PX = 1e-3  # far above the errors of a transform, which would move a tile by a pixel


class CentredScene(Scene):
    """Tiles lie where they are asked for, are encoded when they are looked at, and are not kept.

    Reduced pixels are means over the raster's own, because an overview's depend on where it starts.
    """

    keeps = False

    @classmethod
    def of(cls, scene: Scene) -> Self:
        """A scene, looked at so."""
        return cls(scene.model, scene.store, scene.recipe, scene._raster, client=scene.client)

    def locate(self, scale: float, bounds: Bounds) -> Tile:
        """The tile in whose middle an object lies; its index is the (row, col) of that pixel."""
        xmin, ymin, xmax, ymax = bounds
        col, row = _middle_px(xmin, xmax), _middle_px(ymin, ymax)
        side = round(self.model.size * scale)
        read = Window(col - side // 2, row - side // 2, side, side)
        height, width = self.frame.shape
        return Tile((row, col), scale, read, read & Window(0, 0, width, height) or read)

    def grid(self, scale: float, around: Window) -> TileGrid:
        """Tiles at a scale, in the middle of one of which a window lies."""
        read = self.locate(scale, (around.col, around.row, around.right, around.bottom)).read
        stored = self.store.grid(scale)
        return TileGrid(stored.shape, stored.size, stored.overlap, scale, (read.col, read.row))

    def missing(self, tiles: Iterable[Tile]) -> list[Tile]:
        """None: tiles are encoded when they are looked at."""
        return []

    def encoded(self, tiles: Iterable[Tile]) -> list[EncodedTile]:
        """Tiles, encoded now.

        Raises:
            StoreIncomplete: the raster is gone.
            RasterError: it cannot be read, or is not the one that the store was made of.
        """
        chips = [self._read(tile) for tile in tiles]
        images = [self.recipe.stretch(chip) for chip in chips if chip.valid.any()]
        batch = self.model.batch
        batches = (np.stack(images[i : i + batch]) for i in range(0, len(images), batch))
        features = (own for some in batches for own in self.model.encode(some))
        return [
            EncodedTile(next(features) if chip.valid.any() else None, chip.valid, chip.whole)
            for chip in chips
        ]

    def address(self) -> Address:
        """Where another process finds this scene."""
        address = super().address()
        return _CentredAddress(address.model, address.store, address.raster)

    def _read(self, tile: Tile) -> Chip:
        raster = self.readable(tile)
        try:
            return raster.read(tile.read, self.recipe.stretch.bands, tile.scale, overviews=False)
        except RasterError as error:
            raise RasterError(f"{tile}: {error}") from error


@dataclass(frozen=True, slots=True)
class _CentredAddress(Address):
    def open(self) -> Scene:
        """The scene."""
        return CentredScene.of(Address.open(self))


def _middle_px(low: float, high: float) -> int:
    return math.floor((low + high) / 2 + 0.5 + ROUNDING_PX)
