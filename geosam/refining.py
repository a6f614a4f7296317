"""A large object's outline, drawn again at a finer scale than that at which the object was found.

What is inside and what is outside stays as it was found; only in a band along the outline are
pixels looked at again, tile by tile, each tile being given its part of the mask as a prompt.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from geosam.masks import Mask
from geosam.protocol import MASK_LOGIT, TILES_AT_ONCE, Features, Floats, TilePrompt
from geosam.scene import EncodedTile, Scene
from geosam.tile_masks import Cells, any_in_cells, span, without_specks
from tiles import StoreIncomplete, Tile, TileGrid, Window

FINER = 4  # times as fine as it was found, at most
FINEST = 1.0  # raster px per tile px: what is drawn at the raster's own pixels stays as it is
BAND = 2  # cells of the coarse mask by which an outline may move
AGREEMENT = 0.5  # IoU, within the band, below which a tile is taken to see another object

Numbers = npt.NDArray[np.float64]
Ensure = Callable[[list[Tile]], None]
"""Has tiles encoded. Raises StoreIncomplete where that is impossible."""


def refine(scene: Scene, mask: Mask, scales: Sequence[float], ensure: Ensure) -> Mask:
    """A mask with its outline at the pixels of a finer scale.

    It stays as it is if there is no such scale, or if tiles are missing that cannot be encoded.

    Args:
        scene: where the mask was found.
        mask: of the scene.
        scales: that may be used.
        ensure: see `Ensure`.

    Raises:
        RasterError: the raster cannot be read.
    """
    finer = [s for s in scales if max(FINEST, mask.scale / FINER) <= s < mask.scale]
    if not finer or mask.logits is None:
        return mask
    coarse = _Coarse.of(scene, mask)
    canvas = _Canvas.over(scene, coarse, scene.grid(min(finer), coarse.window))
    tiles = list(canvas.tiles())
    try:
        ensure(tiles)
    except StoreIncomplete:
        return mask
    for start in range(0, len(tiles), TILES_AT_ONCE):
        some = tiles[start : start + TILES_AT_ONCE]
        encoded = scene.encoded(some)
        seen = _seen(scene, some, encoded, coarse, canvas.cell)
        for tile, own, found in zip(some, encoded, seen, strict=True):
            if found is not None:
                canvas.draw(tile, own, found)
    return canvas.mask(scene, mask)


def corner_and_cell(scene: Scene, mask: Mask) -> tuple[tuple[int, int], int]:
    """(col, row) of a mask's first cell and its cells' side, raster px, at a scale above 1."""
    corners = scene.frame.to_pixel(mask.frame.to_world([[0.0, 0.0], [1.0, 1.0]]))
    (col, row), (next_col, _) = np.rint(corners).astype(int).tolist()
    return (col, row), next_col - col


@dataclass(frozen=True, slots=True, eq=False)
class _Coarse:
    """A mask as it was found, to be read anywhere.

    Attributes:
        mask: the mask, which has logits.
        col: of its first cell's corner, raster px.
        row: likewise.
        cell: side of a cell, raster px.
        near: (h + 2 p, w + 2 p), cells within `BAND` of the outline, with a margin p.
    """

    mask: Mask
    col: int
    row: int
    cell: int
    near: Cells

    @classmethod
    def of(cls, scene: Scene, mask: Mask) -> Self:
        """A mask of a scene."""
        (col, row), cell = corner_and_cell(scene, mask)
        inside = np.pad(_logits(mask) > 0, BAND + 1)
        near = _grown(inside, BAND) & _grown(~inside, BAND)
        return cls(mask, col, row, cell, near)

    @property
    def window(self) -> Window:
        """The mask's cells, raster px."""
        height, width = self.mask.frame.shape
        return Window(self.col, self.row, width * self.cell, height * self.cell)

    def extent(self) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) of the mask and its band, raster px."""
        window, margin = self.window, BAND * self.cell
        return (
            window.col - margin, window.row - margin,
            window.right + margin, window.bottom + margin,
        )  # fmt: skip

    def logits_at(self, rows: Numbers, cols: Numbers) -> Floats:
        """Interpolated between the cells' centres; at most -1 beside the mask's cells."""
        found = _between(_logits(self.mask), (rows - self.row) / self.cell - 0.5)
        found = _between(found.T, (cols - self.col) / self.cell - 0.5).T
        height, width = self.mask.frame.shape
        on_rows = (rows > self.row) & (rows < self.row + height * self.cell)
        on_cols = (cols > self.col) & (cols < self.col + width * self.cell)
        return np.where(on_rows[:, None] & on_cols, found, np.minimum(found, -1)).astype(np.float32)

    def near_at(self, rows: Numbers, cols: Numbers) -> Cells:
        """Whether places are near the outline."""
        i, j = (
            ((at - start) // self.cell).astype(int) + BAND + 1
            for at, start in ((rows, self.row), (cols, self.col))
        )
        height, width = self.near.shape
        on = ((i >= 0) & (i < height))[:, None] & ((j >= 0) & (j < width))
        near: Cells = self.near[i.clip(0, height - 1)][:, j.clip(0, width - 1)] & on
        return near

    def valid_within(self, rows: Numbers, cols: Numbers) -> Cells:
        """Whether all is valid between these edges (n + 1,), (m + 1,); (n, m) bool."""
        if self.mask.valid is None:
            return np.ones((len(rows) - 1, len(cols) - 1), bool)
        gaps = np.pad(~self.mask.valid, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
        px = self.cell * self.mask.frame.shape[0] / self.mask.valid.shape[0]
        (top, bottom), (left, right) = (
            (
                np.floor((at[:-1] - start) / px).astype(int).clip(0, most),
                np.ceil((at[1:] - start) / px).astype(int).clip(0, most),
            )
            for at, start, most in (
                (rows, self.row, len(gaps) - 1),
                (cols, self.col, len(gaps[0]) - 1),
            )
        )
        count = (
            gaps[np.ix_(bottom, right)] - gaps[np.ix_(top, right)]
            - gaps[np.ix_(bottom, left)] + gaps[np.ix_(top, left)]
        )  # fmt: skip
        valid: Cells = count == 0
        return valid


@dataclass(frozen=True, slots=True, eq=False)
class _Canvas:
    """A mask on the cells of a finer grid.

    Attributes:
        grid: whose tiles are drawn.
        k: px of a tile a cell.
        cell: side of a cell, raster px.
        col: of the first cell's corner, raster px.
        row: likewise.
        logits: (h, w) float32.
        band: (h, w) bool, cells to look at again.
        valid: (h * k, w * k) bool.
    """

    grid: TileGrid
    k: int
    cell: int
    col: int
    row: int
    logits: Floats
    band: Cells
    valid: Cells

    @classmethod
    def over(cls, scene: Scene, coarse: _Coarse, grid: TileGrid) -> Self:
        """The mask as it was found."""
        k = scene.model.size // scene.model.logits_size
        cell = round(k * grid.scale)
        first = grid[0, 0].read
        left, top, right, bottom = coarse.extent()
        left -= (left - first.col) % cell
        top -= (top - first.row) % cell
        height, width = -(-(bottom - top) // cell), -(-(right - left) // cell)
        rows, cols = _centres(top, height, cell), _centres(left, width, cell)
        edges = (
            _centres(top, height * k + 1, grid.scale) - grid.scale / 2,
            _centres(left, width * k + 1, grid.scale) - grid.scale / 2,
        )
        logits, band = coarse.logits_at(rows, cols), coarse.near_at(rows, cols)
        return cls(grid, k, cell, left, top, logits, band, coarse.valid_within(*edges))

    def tiles(self) -> Iterator[Tile]:
        """The tiles that answer for some of the band."""
        height, width = self.band.shape
        window = Window(self.col, self.row, width * self.cell, height * self.cell)
        for tile in self.grid.over(window):
            if self.band[self._core(tile)].any():
                yield tile

    def draw(self, tile: Tile, encoded: EncodedTile, found: Floats) -> None:
        """Put what a tile shows of the object, logits (s, s), into the band."""
        core = self._core(tile)
        top, left = (
            (edge - start) // self.cell
            for edge, start in ((tile.read.row, self.row), (tile.read.col, self.col))
        )
        here = tuple(
            slice(c.start - at, c.stop - at) for c, at in zip(core, (top, left), strict=True)
        )
        band = self.band[core]
        self.logits[core] = np.where(band, found[here], self.logits[core])
        px, own = (
            tuple(slice(c.start * self.k, c.stop * self.k) for c in part) for part in (core, here)
        )
        band_px = np.kron(band, np.ones((self.k, self.k), bool))
        self.valid[px] = np.where(band_px, encoded.whole[own], self.valid[px])

    def mask(self, scene: Scene, mask: Mask) -> Mask:
        """The mask that was found, with what the canvas shows now."""
        inside = self.logits > 0
        kept = without_specks(inside)
        if not kept.any():
            return mask
        (top, bottom), (left, right) = (span(np.asarray(kept.any(axis))) for axis in (1, 0))
        part = np.where(inside == kept, self.logits, -self.logits)[top:bottom, left:right]
        k, cell = self.k, self.cell
        valid = self.valid[top * k : bottom * k, left * k : right * k]
        window = Window(
            self.col + left * cell, self.row + top * cell,
            (right - left) * cell, (bottom - top) * cell,
        )  # fmt: skip
        return replace(
            mask,
            logits=np.ascontiguousarray(part),
            frame=scene.frame.crop(window, cell),
            valid=None if valid.all() else valid,
        )

    def _core(self, tile: Tile) -> tuple[slice, slice]:
        """The cells that a tile answers for; at the raster's border those that reach beyond it."""
        core = tile.core
        (top, bottom), (left, right) = (
            (max((low - start) // self.cell, 0), min(-(-(high - start) // self.cell), most))
            for low, high, start, most in (
                (core.row, core.bottom, self.row, self.band.shape[0]),
                (core.col, core.right, self.col, self.band.shape[1]),
            )
        )
        return slice(top, max(top, bottom)), slice(left, max(left, right))


def _seen(
    scene: Scene,
    tiles: Sequence[Tile],
    encoded: Sequence[EncodedTile],
    coarse: _Coarse,
    cell: int,
) -> list[Floats | None]:
    """Logits (s, s) of the object on each tile; None if it shows no object like the one found."""
    model, side = scene.model, scene.model.logits_size
    seen: list[Floats | None] = [None] * len(tiles)
    rough: dict[int, Cells] = {}
    features: list[Features] = []
    for i, (tile, own) in enumerate(zip(tiles, encoded, strict=True)):
        if own.features is None:
            seen[i] = np.full((side, side), -1, np.float32)
            continue
        inside = coarse.logits_at(*_places(tile, side, cell)) > 0
        if inside.any():
            rough[i] = inside
            features.append(own.features)
    if not rough:
        return seen
    k = model.size // side
    prompts = [_prompt(inside, k) for inside in rough.values()]
    logits, _ = model.decode(features, prompts, multimask=False)
    for (i, inside), found in zip(rough.items(), logits[:, 0], strict=True):
        has_data = any_in_cells(encoded[i].valid, k)
        found = np.where(has_data, found, np.minimum(found, -1))
        near = coarse.near_at(*_places(tiles[i], side, cell))
        both = np.count_nonzero(near & inside & (found > 0))
        either = np.count_nonzero(near & (inside | (found > 0)))
        seen[i] = found if both >= AGREEMENT * either else None
    return seen


def _prompt(inside: Cells, k: int) -> TilePrompt:
    """An object's cells (s, s), k px each, as a mask and the box round it."""
    (top, bottom), (left, right) = (
        (filled[0] * k, (filled[-1] + 1) * k)
        for filled in (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    )
    return TilePrompt(
        np.empty((0, 2), np.float32),
        np.empty(0, np.int64),
        np.array([left, top, right, bottom], np.float32) - 0.5,
        np.where(inside, MASK_LOGIT, -MASK_LOGIT).astype(np.float32),
    )


def _places(tile: Tile, side: int, cell: int) -> tuple[Numbers, Numbers]:
    """The rows and columns, raster px, of the centres of a tile's cells."""
    return _centres(tile.read.row, side, cell), _centres(tile.read.col, side, cell)


def _logits(mask: Mask) -> Floats:
    assert mask.logits is not None
    return mask.logits


def _centres(start: int, count: int, step: float) -> Numbers:
    """The middles of pieces of a line, one after the other."""
    centres: Numbers = start + (np.arange(count, dtype=np.float64) + 0.5) * step
    return centres


def _between(rows: Floats, at: Numbers) -> Floats:
    """Rows (h, w) interpolated at places between them (n,), level beyond the ends; (n, w)."""
    low = np.floor(at).astype(int)
    share = (at - low).astype(np.float32)[:, None]
    last = len(rows) - 1
    below, above = rows[low.clip(0, last)], rows[(low + 1).clip(0, last)]
    between: Floats = below * (1 - share) + above * share
    return between


def _grown(cells: Cells, by: int) -> Cells:
    """Cells within so many steps, diagonal ones too, of those that are true."""
    for _ in range(by):
        wide = cells.copy()
        wide[1:] |= cells[:-1]
        wide[:-1] |= cells[1:]
        cells = wide.copy()
        cells[:, 1:] |= wide[:, :-1]
        cells[:, :-1] |= wide[:, 1:]
    return cells
