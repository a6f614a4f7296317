"""Objects as arrays, and their files."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import shapely

from geosam.drafts import draft

Geometries = npt.NDArray[np.object_]
Numbers = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Arrays = dict[str, npt.NDArray[Any]]
Row = tuple[shapely.Geometry, float, float, int, float, tuple[int, int], bool]


@dataclass(frozen=True, slots=True, eq=False)
class Objects:
    """N outlined objects.

    Attributes:
        outlines: (N,) polygons or multipolygons, raster px.
        scores: (N,), the model's own estimate of each mask's IoU.
        stabilities: (N,), IoU of the masks at a higher and a lower threshold.
        tiers: (N,), 0 for the strictest thresholds.
        scales: (N,), raster px per tile px.
        tiles: (N,), (row, col) in the grid of the scale, (N, 2).
        truncated: (N,), whether the object goes on beyond what the model saw.
    """

    outlines: Geometries
    scores: Numbers
    stabilities: Numbers
    tiers: npt.NDArray[np.int64]
    scales: Numbers
    tiles: npt.NDArray[np.int64]
    truncated: Flags

    def __len__(self) -> int:
        return len(self.outlines)

    @classmethod
    def none(cls) -> Self:
        """No object."""
        return cls.of([])

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Self:
        """From rows with one value an attribute, in their order."""
        outlines, scores, stabilities, tiers, scales, tiles, truncated = (
            zip(*rows, strict=True) if rows else ((),) * 7
        )
        geometries = np.empty(len(rows), object)
        geometries[:] = outlines
        return cls(
            geometries,
            np.array(scores, np.float64),
            np.array(stabilities, np.float64),
            np.array(tiers, np.int64),
            np.array(scales, np.float64),
            np.array(tiles, np.int64).reshape(-1, 2),
            np.array(truncated, bool),
        )

    @classmethod
    def joined(cls, parts: "list[Objects]") -> "Objects":
        """All of several, in their order."""
        if not parts:
            return cls.none()
        return Objects(
            *(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls))
        )

    def take(self, chosen: npt.NDArray[np.intp] | Flags) -> "Objects":
        """Some of them."""
        return Objects(*(getattr(self, f.name)[chosen] for f in fields(self)))

    @property
    def bounds(self) -> Numbers:
        """(N, 4) xmin, ymin, xmax, ymax."""
        bounds: Numbers = shapely.bounds(self.outlines).reshape(-1, 4)
        return bounds

    def to_arrays(self) -> Arrays:
        """As plain arrays, without pickles."""
        wkb = shapely.to_wkb(self.outlines)
        lengths = np.array([len(one) for one in wkb], np.int64)
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "outlines"}
        return arrays | {"wkb": np.frombuffer(b"".join(wkb), np.uint8), "wkb_lengths": lengths}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """What `to_arrays` described."""
        stops = np.cumsum(arrays["wkb_lengths"])
        data = arrays["wkb"].tobytes()
        starts = stops - arrays["wkb_lengths"]
        wkb = np.empty(len(stops), object)
        wkb[:] = [data[a:b] for a, b in zip(starts.tolist(), stops.tolist(), strict=True)]
        rest = (arrays[f.name] for f in fields(cls) if f.name != "outlines")
        return cls(shapely.from_wkb(wkb), *rest)


def save(path: Path, arrays: Arrays) -> None:
    """Write arrays into a file that has its name only when it is whole."""
    with draft(path) as place, place.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # its stub takes them for a flag


def load(path: Path) -> Arrays | None:
    """The arrays of a file; None if there is none, or it is damaged."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (FileNotFoundError, BadZipFile, ValueError, EOFError, KeyError):
        return None
