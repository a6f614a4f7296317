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

    Every tile lies on one lattice of tile pixels that starts at the raster's origin, so where two
    tiles overlap they see the same tile pixels. Tiles start every `size - overlap` tile pixels;
    the last one shifts inward to end where the raster ends. Cores are cut midway through the
    overlaps, at whole raster pixels, so a core has at least `overlap // 2` tile pixels of context
    (to a raster pixel) on each side that is not the raster's border. A raster smaller than a tile
    is one tile.

    Attributes:
        shape: (height, width) of the raster, in raster pixels.
        size: Height and width of a tile, in tile pixels.
        overlap: How far neighbours overlap, in tile pixels, below `size`.
        scale: Raster pixels per tile pixel: a whole number, or one over a whole number.

    Raises:
        ValueError: If a number is out of its range, or if at a scale below 1 size and overlap are
            not whole raster pixels.
    """

    shape: tuple[int, int]
    size: int = 1024
    overlap: int = 128
    scale: float = 1.0

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

    def to_dict(self) -> dict[str, Any]:
        """The grid as JSON values."""
        return {
            "shape": list(self.shape),
            "size": self.size,
            "overlap": self.overlap,
            "scale": self.scale,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The grid that `to_dict` described."""
        height, width = values["shape"]
        return cls((height, width), values["size"], values["overlap"], values["scale"])

    @property
    def _axes(self) -> tuple["_Axis", "_Axis"]:
        """Vertical, horizontal."""
        coarser, finer = whole_ratio(self.scale)
        height, width = self.shape
        return (
            _Axis(height, self.size, self.overlap, coarser, finer),
            _Axis(width, self.size, self.overlap, coarser, finer),
        )


@dataclass(frozen=True, slots=True)
class _Axis:
    """One dimension of a grid; a grid is the product of two. Tile pixels unless said otherwise."""

    length: int  # of the raster, in raster pixels
    size: int
    overlap: int
    coarser: int  # raster pixels per tile pixel
    finer: int  # tile pixels per raster pixel

    @property
    def end(self) -> int:
        """Where the raster ends."""
        return -(-self.length * self.finer // self.coarser)

    @property
    def stride(self) -> int:
        return self.size - self.overlap

    @property
    def count(self) -> int:
        """How many tiles."""
        return 1 + max(0, -((self.size - self.end) // self.stride))

    def start(self, index: int) -> int:
        """Where a tile starts."""
        return max(0, min(index * self.stride, self.end - self.size))

    def raster(self, position: int) -> int:
        """A position in raster pixels, which ends with the raster."""
        return min(position // self.finer * self.coarser, self.length)

    def read(self, index: int) -> tuple[int, int]:
        """First and past-the-last raster pixel that a tile sees."""
        start = self.start(index)
        return self.raster(start), self.raster(start + self.size)

    def core(self, index: int) -> tuple[int, int]:
        """First and past-the-last raster pixel that a tile answers for."""
        return self.cut(index), self.cut(index + 1)

    def cut(self, index: int) -> int:
        """The raster pixel where the core of a tile starts: midway through the overlap."""
        if index == 0:
            return 0
        if index == self.count:
            return self.length
        return self.raster((self.start(index - 1) + self.size + self.start(index)) // 2)

    def margin(self, index: int, low: float, high: float) -> float:
        """Raster pixels between bounds and the nearer edge of what a tile sees."""
        start, stop = self.read(index)
        before = low - start if index > 0 else math.inf
        after = stop - high if index < self.count - 1 else math.inf
        return min(before, after)

    def locate(self, low: float, high: float) -> int:
        """The index with the largest margin, the lowest of equals.

        Of the evenly spaced tiles that is one of the two centred nearest the bounds. The first
        and the last have a side that does not count, and the last is shifted: they are tried too.
        """
        last = self.count - 1
        middle = (low + high) / 2 * self.finer / self.coarser
        nearest = math.floor((middle - self.size / 2) / self.stride)
        tried = {min(max(index, 0), last) for index in (0, nearest, nearest + 1, last - 1, last)}
        return max(sorted(tried), key=lambda index: self.margin(index, low, high))


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
