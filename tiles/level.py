"""The pixels of one resolution of a raster: the raster itself, or one of its overviews."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from tiles.errors import RasterError
from tiles.resample import Mask, Pixels
from tiles.window import Window

# GDAL would keep blocks it has read in up to 5 % of the machine's memory; what neighbouring tiles
# share takes less. Who sets the variable chooses otherwise.
_LIMITS = {} if "GDAL_CACHEMAX" in os.environ else {"GDAL_CACHEMAX": 256 << 20}  # bytes


def open_dataset(source: str, **options: int) -> DatasetReader:
    """Open a raster with GDAL, whether or not it is placed on the ground.

    Raises:
        RasterError: If GDAL cannot.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            return rasterio.open(source, **options)
        except RasterioError as error:
            rights = ", your network and credentials" if _is_remote(source) else ""
            raise RasterError(
                f"Raster {source}: cannot be opened ({error}). "
                f"Check the path{rights}, and that GDAL reads this kind of file."
            ) from error


def _is_remote(source: str) -> bool:
    return "://" in source or source.startswith("/vsi")


class Level:
    """The data bands of an open dataset and the validity of their pixels.

    Alpha bands are no data bands: they say what is valid. One band with a palette is three data
    bands: red, green and blue.

    Attributes:
        colors: What each data band shows.
        descriptions: The name of each data band, where it has one.
        dtype: A numpy data type that holds every data band.
        nodata: The nodata value of the first data band, if it has one.
        shape: (height, width) in pixels of this level.

    Raises:
        RasterError: If the dataset holds no real numbers.
    """

    def __init__(self, dataset: DatasetReader, source: str) -> None:
        is_alpha = [color == ColorInterp.alpha for color in dataset.colorinterp]
        self._source = source
        self._dataset = dataset
        self._alpha = [band for band in dataset.indexes if is_alpha[band - 1]]
        self._stored = [band for band in dataset.indexes if not is_alpha[band - 1]]
        self._check_numbers()
        self._palette = self._read_palette()

        self.shape: tuple[int, int] = dataset.shape
        self.nodata: float | None = dataset.nodatavals[self._stored[0] - 1]
        self.colors: tuple[str, ...] = ("red", "green", "blue")
        self.descriptions: tuple[str | None, ...] = (None, None, None)
        self.dtype: np.dtype[Any] = np.dtype(np.uint8)
        if self._palette is None:
            self.colors = tuple(dataset.colorinterp[band - 1].name for band in self._stored)
            self.descriptions = tuple(dataset.descriptions[band - 1] for band in self._stored)
            self.dtype = np.result_type(*(dataset.dtypes[band - 1] for band in self._stored))

    def close(self) -> None:
        """Let go of the file."""
        self._dataset.close()

    def judges_like(self, other: "Level") -> bool:
        """Whether this level tells valid pixels as another one does: by nodata, alpha or mask."""
        one, two = self._dataset, other._dataset
        alike = (
            one.mask_flag_enums == two.mask_flag_enums
            and one.colorinterp == two.colorinterp
            and repr(one.nodatavals) == repr(two.nodatavals)
        )
        return alike and (not self._is_masked or self._masks_something)

    @property
    def _is_masked(self) -> bool:
        flags = self._dataset.mask_flag_enums[self._stored[0] - 1]
        return MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags

    @cached_property
    def _masks_something(self) -> bool:
        """Whether the mask hides a pixel: one that an overview has lost hides none."""
        height, width = self.shape
        band, rows = self._stored[0], 1024
        strips = (((row, min(row + rows, height)), (0, width)) for row in range(0, height, rows))
        with self._reading("its mask"):
            masks = (self._dataset.read_masks(band, window=strip) for strip in strips)
            return any((mask == 0).any() for mask in masks)

    def read(self, window: Window, bands: list[int]) -> tuple[Pixels, Mask]:
        """Pixels (C, H, W) of data bands, from 1, and where they are valid (H, W).

        Raises:
            RasterError: If they cannot be read.
        """
        area = rasterio.windows.Window(window.col, window.row, window.width, window.height)
        with self._reading(area):
            if self._palette is not None:
                return self._read_colors(self._palette, area, bands)
            return self._read_values(area, [self._stored[band - 1] for band in bands])

    @contextmanager
    def _reading(self, area: object) -> Iterator[None]:
        try:
            with rasterio.Env(**_LIMITS):  # in which GDAL's warnings go to the log, not to stderr
                yield
        except RasterioError as error:
            raise RasterError(
                f"Raster {self._source}: unreadable at {area} ({error.__cause__ or error}). "
                "The file is damaged or out of reach: get it again."
            ) from error

    def _check_numbers(self) -> None:
        if not self._stored:
            inside = ", ".join(self._dataset.subdatasets) or "none"
            raise RasterError(
                f"Raster {self._source}: no bands (expected at least one band of data). "
                f"Open one of the rasters inside it: {inside}."
            )
        dtypes = {self._dataset.dtypes[band - 1] for band in self._stored}
        if any(dtype.startswith("complex") for dtype in dtypes):
            raise RasterError(
                f"Raster {self._source}: {', '.join(sorted(dtypes))} values (expected real "
                "numbers). Write their amplitude to a raster of its own first."
            )

    def _read_palette(self) -> npt.NDArray[np.uint8] | None:
        """Red, green, blue and alpha (4, values) of a palette; None where there is none."""
        band = self._stored[0]
        if len(self._stored) > 1 or self._dataset.colorinterp[band - 1] != ColorInterp.palette:
            return None
        palette = np.zeros((4, np.iinfo(self._dataset.dtypes[band - 1]).max + 1), np.uint8)
        palette[3] = 255
        for value, color in self._dataset.colormap(band).items():
            palette[:, value] = color
        return palette

    def _read_colors(
        self, palette: npt.NDArray[np.uint8], area: rasterio.windows.Window, bands: list[int]
    ) -> tuple[Pixels, Mask]:
        valid = self._read_validity(area, self._stored)
        values = self._dataset.read(self._stored[0], window=area)
        colors = np.stack([palette[band - 1][values] for band in bands])
        return colors, valid & (palette[3] > 0)[values]

    def _read_values(self, area: rasterio.windows.Window, stored: list[int]) -> tuple[Pixels, Mask]:
        valid = self._read_validity(area, stored)
        if len({self._dataset.dtypes[band - 1] for band in stored}) == 1:
            values = self._dataset.read(stored, window=area, out_dtype=self.dtype)
        else:  # rasterio reads bands of different types one at a time only
            planes = (
                self._dataset.read(band, window=area, out_dtype=self.dtype) for band in stored
            )
            values = np.stack(list(planes))
        if np.issubdtype(self.dtype, np.floating):
            for plane in values:
                valid &= np.isfinite(plane)
        return values, valid

    def _read_validity(self, area: rasterio.windows.Window, stored: list[int]) -> Mask:
        """Where every alpha band is above 0, no mask lies and the stored bands hold data.

        In unsigned types nodata is often 0, which a dark pixel may hold in one band by chance: a
        pixel lacks data if all bands say so. Other types keep a value for it: one band is enough.
        """
        valid = np.ones((area.height, area.width), bool)
        for band in self._alpha:
            valid &= self._dataset.read(band, window=area) > 0
        flags = self._dataset.mask_flag_enums[stored[0] - 1]
        if MaskFlags.all_valid in flags or MaskFlags.alpha in flags:
            return valid
        if MaskFlags.per_dataset in flags:
            valid &= self._dataset.read_masks(stored[0], window=area) > 0
            return valid
        holds_data = [self._dataset.read_masks(band, window=area) > 0 for band in stored]
        by_chance = np.issubdtype(self.dtype, np.unsignedinteger)
        combine = np.logical_or if by_chance else np.logical_and
        valid &= combine.reduce(holds_data)
        return valid
