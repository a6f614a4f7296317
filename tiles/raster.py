"""The one place that opens rasters."""

import hashlib
import json
import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from pyproj import CRS
from pyproj.exceptions import CRSError
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from tiles.errors import RasterError
from tiles.frame import Frame
from tiles.grid import whole_ratio
from tiles.level import Level, open_dataset
from tiles.resample import Mask, Pixels, block_all, block_mean, enlarge
from tiles.stac import raster_of
from tiles.window import Window

_STRIP_BYTES = 64 << 20
_BLOCK = 128
_FINGERPRINT_BLOCKS = 16
_SAMPLE_BLOCKS = 64
_DENSER = (16, 256)  # times as many blocks are tried where there is no data in the first ones


@dataclass(frozen=True, slots=True, eq=False)
class Chip:
    """Pixels of a raster.

    Attributes:
        data: (C, H, W), in the raster's data type. Where not valid, the values mean nothing.
        valid: (H, W) bool. Where the raster has data: in any of the bands read where their type is
            unsigned, in all of them where it is not. A reduced pixel counts if half of what lies
            beneath does.
        whole: (H, W) bool. Where all that lies beneath a pixel has data. The same as `valid` unless
            the chip is reduced; where it was read from an overview, as far as that one knows.
        frame: Where the pixels lie on the ground.
    """

    data: Pixels
    valid: Mask
    whole: Mask
    frame: Frame


class Raster:
    """A raster on the ground, read window by window. Safe to read from several threads.

    Only bands that hold data count, from 1. An alpha band says which pixels are valid and is not
    one of them. A single band with a palette reads as three bands, red, green and blue. Values
    are as stored: scale and offset tags are not applied.

    Attributes:
        source: What was opened.
        frame: Shape, transform and CRS.
        count: Number of data bands.
        dtype: The numpy data type that holds the values of every data band.
        nodata: The nodata value of the first data band, if it has one.
        colors: What each data band shows: "red", "gray", "undefined" and so on.
        descriptions: The name of each data band, where it has one.
        overviews: Raster pixels per pixel of each overview, finest first.
    """

    def __init__(self, source: str, frame: Frame, level: Level, overviews: tuple[int, ...]) -> None:
        self.source = source
        self.frame = frame
        self.count = len(level.colors)
        self.dtype = level.dtype
        self.nodata = level.nodata
        self.colors = level.colors
        self.descriptions = level.descriptions
        self.overviews = overviews
        self._base = level
        self._coarser: dict[int, Level] = {}
        self._lock = threading.RLock()

    @classmethod
    def open(cls, source: str | Path) -> Self:
        """Open any raster that GDAL reads: a file, a `/vsi...` path or an http(s) URL.

        A STAC item stands for the raster among its assets: `item.json`, or `item.json#visual` to
        choose one, as a path or URL.

        Raises:
            RasterError: If it cannot be opened, is not placed on the ground by a CRS and a
                transform, or holds no real numbers.
        """
        source = raster_of(str(source))
        dataset = open_dataset(source)
        try:
            with rasterio.Env():  # GDAL's warnings go to the log, not to stderr
                overviews = tuple(dataset.overviews(1))
                return cls(source, _frame(dataset, source), Level(dataset, source), overviews)
        except RasterError:
            dataset.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            for level in (self._base, *self._coarser.values()):
                level.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def window(self) -> Window:
        """The whole raster."""
        height, width = self.frame.shape
        return Window(0, 0, width, height)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that tell this raster from another one, whatever its file is called.

        They stand for shape, data type, transform, CRS, nodata, number of bands and the pixels of
        about 16 evenly spread blocks, or of more where those hold no data. It is a sample: an edit
        between the blocks goes unseen.
        """
        about = self.frame.to_dict() | {
            "crs": self.frame.crs.to_string(),  # the text of an authority's CRS may be revised
            "dtype": self.dtype.name,
            "count": self.count,
            "nodata": repr(self.nodata),
        }
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
        for data, valid in self._blocks(_FINGERPRINT_BLOCKS, self._check_chosen(None)):
            digest.update(data.astype(self.dtype.newbyteorder("<"), copy=False).tobytes())
            digest.update(valid.tobytes())
        return digest.hexdigest()[:16]

    def read(
        self,
        window: Window,
        bands: Sequence[int] | None = None,
        scale: float = 1.0,
        *,
        overviews: bool = True,
    ) -> Chip:
        """Read a window, at a scale.

        A pixel of the chip is the same, to the last bit, through whatever window it is read.
        Beyond the raster there is no data.

        At a scale k above 1 a pixel is the mean of the valid pixels of a block of k x k raster
        pixels, counted from the window's corner; it is valid where half of those in the raster are.
        Blocks are taken from an overview where their edges are edges of its pixels. At a scale
        below 1 pixels are interpolated linearly between the centres of the valid raster pixels, and
        as valid as the raster pixel they lie in.

        Args:
            window: Raster pixels, some of them on the raster. At a scale k above 1 its sides are
                multiples of k, or end beyond the raster.
            bands: Data bands from 1, in the order wanted; None: all.
            scale: Raster pixels per chip pixel: a whole number or one over a whole number.
            overviews: Whether they may stand for the raster; without them a pixel depends on the
                raster's own pixels alone.

        Raises:
            ValueError: If the window is off the raster or does not fit the scale.
            RasterError: If a band does not exist or the raster cannot be read.
        """
        coarser, finer = whole_ratio(scale)
        inside = self._check_window(window, coarser)
        chosen = self._check_chosen(bands)
        if finer > 1:
            data, valid = self._read_finer(inside, chosen, finer)
            whole = valid
        elif coarser > 1:
            data, valid, whole = self._read_coarser(window, inside, chosen, coarser, overviews)
        else:
            data, valid = self._read_level(self._base, inside, chosen)
            whole = valid
        frame = self.frame.crop(window, scale)
        if valid.shape != frame.shape:
            top, left = (inside.row - window.row) * finer, (inside.col - window.col) * finer
            corner = (top // coarser, left // coarser)
            data, valid, whole = (
                _placed(part, corner, frame.shape) for part in (data, valid, whole)
            )
        return Chip(data, valid, whole, frame)

    def sample(
        self, bands: Sequence[int] | None = None, max_px: int = 1_000_000
    ) -> tuple[Pixels, Mask]:
        """Pixels that speak for the whole raster, for statistics. Always the same ones.

        The whole raster where it is small; else its finest overview that is small enough; else 64
        evenly spread blocks of 128 x 128 pixels, or more where those hold no data.

        Args:
            bands: Data bands from 1; None: all.
            max_px: What counts as small, in pixels.

        Returns:
            Values (C, N) and validity (N,).
        """
        chosen = self._check_chosen(bands)
        for _, level in self._levels():
            height, width = level.shape
            if height * width <= max_px:
                parts = [self._read_level(level, Window(0, 0, width, height), chosen)]
                break
        else:
            parts = self._blocks(_SAMPLE_BLOCKS, chosen)
        values = np.concatenate([data.reshape(len(chosen), -1) for data, _ in parts], axis=1)
        return values, np.concatenate([valid.ravel() for _, valid in parts])

    def _blocks(self, wanted: int, bands: list[int]) -> list[tuple[Pixels, Mask]]:
        """About `wanted` blocks, evenly spread; denser ones if there is no data in them."""
        blocks = [self._read_level(self._base, w, bands) for w in _spread(self.frame.shape, wanted)]
        for density in _DENSER:
            if any(valid.any() for _, valid in blocks):
                break
            denser = (
                self._read_level(self._base, w, bands)
                for w in _spread(self.frame.shape, wanted * density)
            )
            blocks = [block for block in denser if block[1].any()] or blocks
        return blocks

    def _check_window(self, window: Window, coarser: int) -> Window:
        """The part of a window that lies on the raster."""
        inside = window & self.window
        if inside is None:
            raise ValueError(f"{window}: off the raster (expected some of {self.window}).")
        fits_cols = window.width % coarser == 0 or window.right >= self.window.right
        fits_rows = window.height % coarser == 0 or window.bottom >= self.window.bottom
        if not (fits_cols and fits_rows):
            raise ValueError(
                f"{window}: does not fit scale {coarser} (expected sides that are multiples of "
                f"{coarser}, or end beyond the raster)."
            )
        return inside

    def _check_chosen(self, bands: Sequence[int] | None) -> list[int]:
        chosen = list(range(1, self.count + 1) if bands is None else bands)
        wrong = [band for band in chosen if not 1 <= band <= self.count]
        if wrong or not chosen:
            raise RasterError(
                f"Bands {chosen} of {self.source}: no such bands (expected some of 1 to "
                f"{self.count}). Choose bands that it has."
            )
        return chosen

    def _read_finer(self, window: Window, bands: list[int], factor: int) -> tuple[Pixels, Mask]:
        around = Window.spanning(
            max(window.col - 1, 0),
            max(window.row - 1, 0),
            min(window.right + 1, self.window.right),
            min(window.bottom + 1, self.window.bottom),
        )
        data, valid = self._read_level(self._base, around, bands)
        rows = (1 - (window.row - around.row), 1 - (around.bottom - window.bottom))
        cols = (1 - (window.col - around.col), 1 - (around.right - window.right))
        data = np.pad(data, ((0, 0), rows, cols), mode="edge")
        return enlarge(data, np.pad(valid, (rows, cols), mode="edge"), factor)

    def _read_coarser(
        self, window: Window, inside: Window, bands: list[int], factor: int, overviews: bool
    ) -> tuple[Pixels, Mask, Mask]:
        """Data, validity and wholeness of a window's blocks that reach into `inside`."""
        step, level = [
            (step, level)
            for step, level in (self._levels() if overviews else [(1, self._base)])
            if factor % step == window.col % step == window.row % step == 0
        ][-1]
        (height, width), rest = inside.shape_at(step), factor // step
        source = Window(inside.col // step, inside.row // step, width, height)
        if rest == 1:
            data, valid = self._read_level(level, source, bands)
            return data, valid, valid
        lead = (inside.row - window.row) // step % rest, (inside.col - window.col) // step % rest
        shape = (-(-(height + lead[0]) // rest), -(-(width + lead[1]) // rest))
        data = np.empty((len(bands), *shape), self.dtype)
        valid, whole = np.empty(shape, bool), np.empty(shape, bool)
        row_bytes = width * len(bands) * (self.dtype.itemsize + 8)
        done = 0
        for strip in _strips(source, rest * max(1, _STRIP_BYTES // (row_bytes * rest)), lead[0]):
            pixels, has_data = self._read_level(level, strip, bands)
            lack = (lead[0] if strip.row == source.row else 0, lead[1])
            means, kept = block_mean(pixels, has_data, rest, lack)
            rows = slice(done, done := done + len(kept))
            data[:, rows], valid[rows], whole[rows] = means, kept, block_all(has_data, rest, lack)
        return data, valid, whole

    def _levels(self) -> Iterator[tuple[int, Level]]:
        """The raster, then the overviews that can stand for it, each with its factor."""
        yield 1, self._base
        for position, factor in enumerate(self.overviews):
            with self._lock:
                if factor not in self._coarser:
                    self._coarser[factor] = self._open_overview(position)
                level = self._coarser[factor]
                whole = level.shape == self.window.shape_at(factor)
                can_stand_in = whole and level.judges_like(self._base)
            if can_stand_in:
                yield factor, level

    def _open_overview(self, position: int) -> Level:
        return Level(open_dataset(self.source, overview_level=position), self.source)

    def _read_level(self, level: Level, window: Window, bands: list[int]) -> tuple[Pixels, Mask]:
        with self._lock:
            return level.read(window, bands)


def _frame(dataset: DatasetReader, source: str) -> Frame:
    if dataset.transform == Affine.identity() or not dataset.crs:
        tied = "ground control points" if dataset.gcps[0] else "RPCs" if dataset.rpcs else ""
        if tied:
            raise RasterError(
                f"Raster {source}: placed by {tied} only (expected a CRS and a transform). "
                f"Warp it first: `gdalwarp {source} warped.tif` or `rio warp`."
            )
        lacking = "CRS" if not dataset.crs else "transform"
        raise RasterError(
            f"Raster {source}: no {lacking} (expected a georeferenced raster). If you know where "
            f"it lies, say so first: `gdal_edit.py -a_srs EPSG:... -a_ullr ...`."
        )
    try:
        crs = CRS.from_wkt(dataset.crs.to_wkt(version="WKT2_2019"))
        return Frame(dataset.shape, dataset.transform, crs)
    except (CRSError, RasterioError, ValueError) as error:
        raise RasterError(
            f"Raster {source}: georeference not understood ({error}). "
            "Set its CRS and transform anew: `gdal_edit.py -a_srs EPSG:... -a_ullr ...`."
        ) from error


def _strips(window: Window, height: int, lack: int) -> Iterator[Window]:
    """The window in strips of at most `height` rows; the first has so many fewer."""
    for row in range(window.row - lack, window.bottom, height):
        start = max(row, window.row)
        yield Window.spanning(window.col, start, window.right, min(row + height, window.bottom))


def _placed(
    part: npt.NDArray[Any], corner: tuple[int, int], shape: tuple[int, int]
) -> npt.NDArray[Any]:
    """An array (..., h, w) in a larger one (..., H, W) of zeros, from a (row, col) on."""
    whole = np.zeros((*part.shape[:-2], *shape), part.dtype)
    (top, left), (height, width) = corner, part.shape[-2:]
    whole[..., top : top + height, left : left + width] = part
    return whole


def _spread(shape: tuple[int, int], wanted: int) -> list[Window]:
    """About `wanted` square blocks, evenly spread from edge to edge; fewer on a small raster."""
    height, width = shape
    most_rows, most_cols = (math.ceil(length / _BLOCK) for length in shape)
    rows = min(max(1, round(math.sqrt(wanted * height / width))), most_rows)
    cols = min(math.ceil(wanted / rows), most_cols)
    rows = min(math.ceil(wanted / cols), most_rows)
    block = (min(_BLOCK, width), min(_BLOCK, height))
    return [
        Window(int(col), int(row), *block)
        for row in np.linspace(0, height - block[1], rows).round()
        for col in np.linspace(0, width - block[0], cols).round()
    ]
