"""Which tiles a raster is cut into."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

from tiles.window import Window

Bounds = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Tile:
    """A planned place in a grid.

    Attributes:
        index: (row, col) in the grid.
        scale: Raster pixels per tile pixel.
        read: The raster pixels the tile sees, context included.
        core: The raster pixels the tile answers for. The cores of a grid partition its raster.
    """

    index: tuple[int, int]
    scale: float
    read: Window
    core: Window

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the tile's chip, in tile pixels."""
        return self.read.shape_at(self.scale)

    def __str__(self) -> str:
        row, col = self.index
        return f"tile ({row}, {col}) at scale {self.scale:g}"


@dataclass(frozen=True, slots=True)
class TileGrid:
    """Overlapping square tiles over a raster.

    Tiles start every `size - overlap` tile pixels, counted from the anchor in every direction, so
    where two tiles overlap they see the same tile pixels, and two rasters that share ground and
    anchor share the tiles there. Tiles at the raster's border reach beyond it. Cores are cut midway
    through the overlaps, at whole raster pixels, so a core has at least `overlap // 2` tile pixels
    of context (to a raster pixel) on each side that is not the raster's border. Along an axis where
    one tile can hold the raster there is one; it starts as near to the lattice as it may.

    Attributes:
        shape: (height, width) of the raster, in raster pixels.
        size: Height and width of a tile, in tile pixels.
        overlap: How far neighbours overlap, in tile pixels, below `size`.
        scale: Raster pixels per tile pixel: a whole number, or one over a whole number.
        anchor: (col, row) of a raster pixel where a tile starts; it may lie anywhere.

    Raises:
        ValueError: If a number is out of its range, or if at a scale below 1 size and overlap are
            not whole raster pixels.
    """

    shape: tuple[int, int]
    size: int = 1024
    overlap: int = 128
    scale: float = 1.0
    anchor: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if len(self.shape) != 2 or min(self.shape) < 1:
            raise ValueError(f"Grid shape: {self.shape} (expected positive height and width).")
        if not 0 <= self.overlap < self.size:
            raise ValueError(
                f"Grid overlap: {self.overlap} (expected 0 to size - 1 = {self.size - 1})."
            )
        _, finer = whole_ratio(self.scale)
        if self.size % finer or self.overlap % finer:
            raise ValueError(
                f"Grid size and overlap: {self.size} and {self.overlap} (expected multiples of "
                f"{finer}, the tile pixels per raster pixel)."
            )

    @property
    def rows(self) -> int:
        """Number of rows of tiles."""
        return self._axes[0].count

    @property
    def cols(self) -> int:
        """Number of columns of tiles."""
        return self._axes[1].count

    def __len__(self) -> int:
        return self.rows * self.cols

    def __iter__(self) -> Iterator[Tile]:
        """Row by row from the top-left."""
        return (self[row, col] for row in range(self.rows) for col in range(self.cols))

    def __getitem__(self, index: tuple[int, int]) -> Tile:
        """The tile at (row, col).

        Raises:
            IndexError: If the grid has no such tile.
        """
        row, col = index
        if not (0 <= row < self.rows and 0 <= col < self.cols):
            raise IndexError(f"Tile ({row}, {col}) (expected one of {self.rows} x {self.cols}).")
        vertical, horizontal = self._axes
        (top, bottom), (left, right) = vertical.read(row), horizontal.read(col)
        read = Window.spanning(left, top, right, bottom)
        (top, bottom), (left, right) = vertical.core(row), horizontal.core(col)
        core = Window.spanning(left, top, right, bottom)
        return Tile((row, col), self.scale, read, core)

    def locate(self, bounds: Bounds) -> Tile:
        """The tile that sees most context round an object.

        That is the tile whose read window leaves the largest margin round the bounds, on each
        axis; the raster's own border hides nothing and counts as infinitely far. The lowest index
        wins a tie. The margin is negative where the object is larger than a tile.

        Args:
            bounds: (xmin, ymin, xmax, ymax) in raster pixel coordinates.

        Raises:
            ValueError: If the bounds are inside out or not finite.
        """
        xmin, ymin, xmax, ymax = bounds
        if not (all(map(math.isfinite, bounds)) and xmin <= xmax and ymin <= ymax):
            raise ValueError(f"Bounds {bounds}: (expected finite xmin <= xmax and ymin <= ymax).")
        vertical, horizontal = self._axes
        return self[vertical.locate(ymin, ymax), horizontal.locate(xmin, xmax)]

    def over(self, window: Window) -> Iterator[Tile]:
        """The tiles whose cores share pixels with a window, row by row."""
        first = self.locate((window.col, window.row) * 2).index
        last = self.locate((window.right, window.bottom) * 2).index
        for row in range(max(first[0] - 1, 0), min(last[0] + 2, self.rows)):
            for col in range(max(first[1] - 1, 0), min(last[1] + 2, self.cols)):
                tile = self[row, col]
                if tile.core & window:
                    yield tile

    def to_dict(self) -> dict[str, Any]:
        """The grid as JSON values."""
        return {
            "shape": list(self.shape),
            "size": self.size,
            "overlap": self.overlap,
            "scale": self.scale,
            "anchor": list(self.anchor),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The grid that `to_dict` described."""
        height, width = values["shape"]
        col, row = values["anchor"]
        size, overlap, scale = values["size"], values["overlap"], values["scale"]
        return cls((height, width), size, overlap, scale, (col, row))

    @property
    def _axes(self) -> tuple["_Axis", "_Axis"]:
        """Vertical, horizontal."""
        return _axes(self)


@lru_cache(maxsize=256)
def _axes(grid: TileGrid) -> tuple["_Axis", "_Axis"]:
    coarser, finer = whole_ratio(grid.scale)
    size, overlap = grid.size * coarser // finer, grid.overlap * coarser // finer
    (height, width), (col, row) = grid.shape, grid.anchor
    return _Axis.of(height, size, overlap, row), _Axis.of(width, size, overlap, col)


@dataclass(frozen=True, slots=True)
class _Axis:
    """One dimension of a grid, in raster pixels; a grid is the product of two."""

    length: int  # of the raster
    size: int
    overlap: int
    first: int  # where the first tile starts, 0 or below

    @classmethod
    def of(cls, length: int, size: int, overlap: int, anchor: int) -> Self:
        """With the first tile where the lattice through an anchor has it, if there are several.

        One alone is shifted by as large a part of the stride as lets it hold the raster, so that a
        model's patches mostly fall where they do in a larger raster.
        """
        step = size - overlap
        while length <= size < _before_zero(anchor, step) + length:
            step //= 2
        return cls(length, size, overlap, -_before_zero(anchor, step))

    @property
    def stride(self) -> int:
        return self.size - self.overlap

    @property
    def count(self) -> int:
        """How many tiles."""
        return 1 + max(0, -((self.first + self.size - self.length) // self.stride))

    def read(self, index: int) -> tuple[int, int]:
        """First and past-the-last pixel that a tile sees."""
        start = self.first + index * self.stride
        return start, start + self.size

    def core(self, index: int) -> tuple[int, int]:
        """First and past-the-last pixel that a tile answers for."""
        return self.cut(index), self.cut(index + 1)

    def cut(self, index: int) -> int:
        """The pixel where the core of a tile starts: midway through the overlap."""
        if index == 0:
            return 0
        if index == self.count:
            return self.length
        return self.first + index * self.stride + self.overlap // 2

    def margin(self, index: int, low: float, high: float) -> float:
        """Pixels between bounds and the nearer edge of what a tile sees."""
        start, stop = self.read(index)
        before = low - start if index > 0 else math.inf
        after = stop - high if index < self.count - 1 else math.inf
        return min(before, after)

    def locate(self, low: float, high: float) -> int:
        """The index with the largest margin, the lowest of equals.

        That is one of the two tiles centred nearest the bounds, or the first or the last, which
        have a side that does not count.
        """
        last = self.count - 1
        middle = (low + high) / 2
        nearest = math.floor((middle - self.first - self.size / 2) / self.stride)
        tried = {min(max(index, 0), last) for index in (0, nearest, nearest + 1, last)}
        return max(sorted(tried), key=lambda index: self.margin(index, low, high))


def _before_zero(anchor: int, step: int) -> int:
    """How far before 0 the last of the places lies that come every `step` from an anchor."""
    return -anchor % step


@lru_cache(maxsize=64)
def whole_ratio(scale: float) -> tuple[int, int]:
    """A scale as (raster pixels, tile pixels), one of which is 1.

    Raises:
        ValueError: If the scale is neither a whole number nor one over a whole number.
    """
    if 0 < scale < math.inf:
        coarser, finer = max(1, round(scale)), max(1, round(1 / scale))
        if math.isclose(coarser / finer, scale, rel_tol=1e-9):
            return coarser, finer
    raise ValueError(
        f"Scale: {scale} (expected a whole number, or one over a whole number: 0.25, 0.5, 1, 2...)."
    )
