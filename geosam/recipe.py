"""All that determines features: raster, bands, stretch and model. Equal recipes, equal features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from geosam.errors import BandError
from geosam.protocol import FILL, Images, Model, Precision
from tiles import Chip, Raster

PERCENTILES = (2.0, 98.0)


@dataclass(frozen=True, slots=True)
class Stretch:
    """How three bands become the model's red, green and blue: one linear stretch for the scene.

    Attributes:
        bands: three raster bands, counted from 1; they may repeat.
        low: the value of each band that becomes grey level 0.
        high: the value of each band that becomes grey level 255.
    """

    bands: tuple[int, int, int]
    low: tuple[float, float, float]
    high: tuple[float, float, float]

    @classmethod
    def of(cls, raster: Raster, bands: Sequence[int] | None = None) -> Self:
        """The stretch that suits a raster.

        Bytes are left as they are. Other types are stretched between two percentiles of the valid
        values, which are sampled over the whole scene, never tile by tile.

        Args:
            raster: the scene.
            bands: one band, or three for red, green and blue. None: the bands that the raster
                calls so, else its first three, else its first one as grey.

        Raises:
            BandError: the raster has no such bands, or they are not one or three.
        """
        chosen = choose_bands(raster, bands)
        if raster.dtype == np.uint8:
            return cls(chosen, (0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
        values, valid = raster.sample(chosen)
        values = values[:, valid].astype(np.float64)  # (3, N)
        if not values.size:
            return cls(chosen, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        (r_low, r_high), (g_low, g_high), (b_low, b_high) = (_ends(band) for band in values)
        return cls(chosen, (r_low, g_low, b_low), (r_high, g_high, b_high))

    def __call__(self, chip: Chip) -> Images:
        """The chip, read with these bands, as an image (3, H, W); `FILL` where it has no data."""
        data, bands = chip.data, list(zip(self.low, self.high, strict=True))
        image: Images
        if data.dtype == np.uint8:
            image = data.astype(np.uint8)  # a copy
        elif data.dtype in (np.uint16, np.int16):
            tables = (_table(low, high, data.dtype.name) for low, high in bands)
            looked_up = zip(tables, data.view(np.uint16), strict=True)
            image = np.stack([table[plane] for table, plane in looked_up])
        else:
            planes = zip(data, bands, strict=True)
            image = np.stack([_grey(plane, *ends) for plane, ends in planes])
        image[:, ~chip.valid] = np.array(FILL, np.uint8)[:, None]
        return image


def _grey(values: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.uint8]:
    """Grey levels between two values; 0 where there is none."""
    with np.errstate(invalid="ignore", over="ignore"):
        unit = (values.astype(np.float64) - low) / (high - low)
    levels: npt.NDArray[np.uint8] = np.rint(np.nan_to_num(unit, nan=0.0).clip(0, 1) * 255).astype(
        np.uint8
    )
    return levels


@lru_cache(maxsize=16)
def _table(low: float, high: float, kind: str) -> npt.NDArray[np.uint8]:
    """The grey level of each value of 16 bits, by its bits as an unsigned number."""
    return _grey(np.arange(2**16, dtype=np.uint16).view(kind), low, high)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What features were made from.

    Attributes:
        raster: the raster's fingerprint.
        source: where the raster was, from the root of the disk; not part of the comparison.
        stretch: bands and grey levels.
        model: the model's id.
        precision: in which the model computed.
    """

    raster: str
    source: str
    stretch: Stretch
    model: str
    precision: Precision = "fp32"

    @classmethod
    def of(cls, model: Model, raster: Raster, bands: Sequence[int] | None = None) -> Self:
        """The recipe for a raster, whose stretch is measured here."""
        stretch = Stretch.of(raster, bands)
        source = from_root(raster.source)
        return cls(raster.fingerprint, source, stretch, model.id, model.precision)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "raster": self.raster,
            "source": self.source,
            "bands": list(self.stretch.bands),
            "low": list(self.stretch.low),
            "high": list(self.stretch.high),
            "model": self.model,
            "precision": self.precision,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The recipe that `to_dict` described; without a precision, it was single."""
        stretch = Stretch(tuple(values["bands"]), tuple(values["low"]), tuple(values["high"]))
        precision = values.get("precision", "fp32")
        return cls(values["raster"], values["source"], stretch, values["model"], precision)


def from_root(place: str) -> str:
    """A path as it is called from any folder; what is no path on this disk stays as it is."""
    path = Path(place)
    return str(path.resolve()) if path.exists() else place


def _ends(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The values (N,) that become black and white."""
    low, high = np.percentile(values, PERCENTILES).tolist()
    if high > low:
        return low, high
    others = values[values != low]  # nearly all values are the same: what do the others say?
    if not others.size:
        return low, low + 1
    other_low, other_high = np.percentile(others, PERCENTILES).tolist()
    return min(low, other_low), max(high, other_high)


def choose_bands(raster: Raster, bands: Sequence[int] | None) -> tuple[int, int, int]:
    """The bands for red, green and blue, see `Stretch.of`."""
    if bands is None:
        names = {color: band for band, color in reversed(list(enumerate(raster.colors, start=1)))}
        if {"red", "green", "blue"} <= names.keys():
            bands = (names["red"], names["green"], names["blue"])
        else:
            bands = (1, 2, 3) if raster.count >= 3 else (1,)
    if len(bands) not in (1, 3) or not all(1 <= band <= raster.count for band in bands):
        raise BandError(
            f"{raster.source}: bands {tuple(bands)} (expected one or three of 1 to "
            f"{raster.count}). Choose others."
        )
    first, *others = bands
    second, third = others or (first, first)
    return first, second, third
