"""From a tile's logits to masks on the ground: cut to size, free of specks, with their status."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from rasterio.features import sieve

from geosam.masks import Mask, Status
from geosam.placement import PixelPrompt
from geosam.protocol import Floats
from geosam.scene import EncodedTile, Scene
from tiles import Frame, Tile, Window

STABILITY_OFFSET = 1.0  # logits
LARGEST_LOOK_UP = 64_000_000  # raster px
SPECK = 0.05  # of the object's area: smaller parts and holes are the model's noise

Cells = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class TileMasks:
    """Makes the masks of one tile.

    Attributes:
        tile: the tile.
        frame: of its pixels.
        raster: all pixels of the raster.
        valid: (S, S) bool, where the tile has data; S is the side of the model's image, px.
        whole: (S, S) bool, where all raster px beneath have data.
        look_up: gives the validity of a window of the raster, or None.
        data: (s, s) bool, cells with any data; s is the side of the model's logits.
        open_edges: left, top, right, bottom: whether the raster goes on beyond the tile there.
    """

    tile: Tile
    frame: Frame
    raster: Window
    valid: Cells
    whole: Cells
    look_up: Callable[[Window], Cells | None]
    data: Cells
    open_edges: tuple[bool, bool, bool, bool]

    @classmethod
    def on(cls, tile: Tile, encoded: EncodedTile, scene: Scene) -> Self:
        """For a tile of a scene."""
        size, cells = scene.model.size, scene.model.logits_size
        height, width = scene.frame.shape
        read = tile.read
        edges = (read.col > 0, read.row > 0, read.right < width, read.bottom < height)
        place = scene.frame.crop(read, tile.scale)
        data = any_in_cells(encoded.valid, size // cells)
        raster = Window(0, 0, width, height)
        return cls(tile, place, raster, encoded.valid, encoded.whole, scene.validity, data, edges)

    def mask(self, prompt: PixelPrompt, logits: Floats, score: float, candidate: int) -> Mask:
        """The mask that logits (s, s) stand for, cut to where it is."""
        found = (logits > 0) & self.data
        inside = without_specks(
            part_at(found, *self._index(prompt, found)) if prompt.is_click else found
        )
        if not inside.any():
            return nothing(prompt.id, "empty", self.frame, self.tile, candidate)
        top, bottom = span(np.asarray(inside.any(1)))
        left, right = span(np.asarray(inside.any(0)))
        rows, cols = slice(top, bottom), slice(left, right)
        part = np.where(inside == found, logits, -logits)[rows, cols]
        part = np.where(self.data[rows, cols], part, np.minimum(part, -1)).astype(np.float32)
        k = len(self.valid) // len(logits)  # px a cell
        place = Window.spanning(left * k, top * k, right * k, bottom * k)
        valid = self._validity(place)
        return Mask(
            prompt_id=prompt.id,
            status=self._status(prompt, inside),
            logits=part,
            frame=self.frame.crop(place, k),
            valid=None if valid.all() else valid,
            score=score,
            stability=stability(part),
            tile=_name(self.tile),
            scale=self.tile.scale,
            candidate=candidate,
        )

    def has_data_at(self, click: PixelPrompt) -> bool:
        """Whether the raster has data where a lone click points."""
        return bool(self.valid[self._index(click, self.valid)])

    def _index(self, click: PixelPrompt, grid: Cells) -> tuple[int, int]:
        """Row and column that a lone click has on a square grid over the model's image."""
        x, y, *_ = click.anchor
        step = self.tile.scale * len(self.valid) / len(grid)  # raster px
        last, read = len(grid) - 1, self.tile.read
        return min(int((y - read.row) / step), last), min(int((x - read.col) / step), last)

    def _validity(self, place: Window) -> Cells:
        """Where a part of the tile has data: by the tile's pixels if they agree with the raster's.

        A reduced pixel may be valid though some of what lies beneath has no data. Then the raster
        is asked, or, if it is gone or the part is huge, only whole pixels count.
        """
        valid, whole = self.valid[place.slices()], self.whole[place.slices()]
        if (valid == whole).all():
            return valid
        k, read = round(self.tile.scale), self.tile.read
        beneath = Window(
            read.col + place.col * k, read.row + place.row * k, place.width * k, place.height * k
        )
        window = beneath & self.raster
        if window is None or window.width * window.height > LARGEST_LOOK_UP:
            return whole
        found = self.look_up(window)
        if found is None:
            return whole
        exact = np.zeros(beneath.shape, bool)
        exact[window.slices(beneath)] = found
        return exact

    def _status(self, prompt: PixelPrompt, inside: Cells) -> Status:
        edges = (inside[:, 0], inside[0], inside[:, -1], inside[-1])
        runs_off = any(
            is_open and edge.any() for is_open, edge in zip(self.open_edges, edges, strict=True)
        )
        if runs_off or not prompt.is_within(self.tile):
            return "truncated"
        return "clipped" if prompt.clipped else "ok"


def nothing(
    prompt_id: str, status: Status, frame: Frame, tile: Tile | None = None, candidate: int = 0
) -> Mask:
    """The answer to a prompt that finds no object; `frame` has the raster's CRS."""
    return Mask(
        prompt_id=prompt_id,
        status=status,
        logits=None,
        frame=frame,
        valid=None,
        score=float("nan"),
        stability=float("nan"),
        tile=_name(tile) if tile else "",
        scale=tile.scale if tile else float("nan"),
        candidate=candidate,
    )


def any_in_cells(px: Cells, k: int) -> Cells:
    """Whether any of the k x k px of each cell is true: (h * k, w * k) -> (h, w)."""
    rows = np.logical_or.reduce([px[i::k] for i in range(k)])  # twenty times as fast as blocks
    return np.asarray(np.logical_or.reduce([rows[:, i::k] for i in range(k)]))


def part_at(mask: Cells, row: int, col: int) -> Cells:
    """The connected part (h, w) of a mask that holds a cell; all of it if the cell is outside."""
    if not mask[row, col]:
        return mask
    part = np.zeros_like(mask)
    part[row, col] = True
    while True:
        grown = _whole_runs(_whole_runs(part, mask).T, mask.T).T
        if (grown == part).all():
            return part
        part = grown


def _whole_runs(part: Cells, mask: Cells) -> Cells:
    """All runs of a mask along its rows that a part of it touches."""
    starts = mask.copy()
    starts[:, 1:] &= ~mask[:, :-1]
    runs = np.cumsum(starts).reshape(mask.shape)
    touched = np.zeros(runs[-1, -1] + 1, bool)
    touched[runs[part]] = True
    whole: Cells = touched[runs] & mask
    return whole


def without_specks(mask: Cells) -> Cells:
    """The mask (h, w) without parts and holes that are tiny beside the object."""
    smallest = int(SPECK * np.count_nonzero(mask))
    if smallest < 2:
        return mask
    kept: Cells = sieve(mask.astype(np.uint8), smallest) > 0
    return kept


def stability(logits: Floats) -> float:
    """IoU of the masks at a higher and a lower threshold (Kirillov et al. 2023, app. B)."""
    wide = np.count_nonzero(logits > -STABILITY_OFFSET)
    return float(np.count_nonzero(logits > STABILITY_OFFSET) / wide) if wide else 0.0


def span(filled: Cells) -> tuple[int, int]:
    """First and past-the-last index that is true, one wider where there is room."""
    indices = np.flatnonzero(filled)
    return max(int(indices[0]) - 1, 0), min(int(indices[-1]) + 2, len(filled))


def _name(tile: Tile) -> str:
    row, col = tile.index
    return f"{tile.scale:g}/{row}/{col}"
