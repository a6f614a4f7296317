"""True outlines of objects on a raster, and which of them can be measured on."""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import geopandas
import shapely
from affine import Affine
from rasterio.features import geometry_mask
from shapely import MultiPolygon, Polygon

from geosam.drawing import view
from geosam.errors import LabelError
from geosam.labelled import kinds_of, on_raster, read_polygons
from tiles import Raster

SMALLEST_AREA_PX = 9.0  # below, an outline is mostly the width of the pen
LEAST_DATA = 0.5  # share of an object's pixels that have data
_SEEN_PX = 64  # side at which an object is looked at for data


class Pair(NamedTuple):
    """A raster and the true outlines of objects on it.

    Attributes:
        raster: any raster that GDAL reads.
        truth: polygons: a vector file, or a table in memory.
        kind: class of all the polygons; None: that of each, where a column says it.
    """

    raster: str | Path
    truth: str | Path | geopandas.GeoDataFrame
    kind: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """One object as it should be outlined.

    Attributes:
        pair: position of its pair.
        row: of its polygon in the table, from 1.
        kind: its class.
        shape: its outline in px of the raster, cut to the raster.
    """

    pair: int
    row: int
    kind: str
    shape: Polygon | MultiPolygon

    @property
    def side_px(self) -> float:
        """The longer side of its extent, px."""
        xmin, ymin, xmax, ymax = self.shape.bounds
        return float(max(xmax - xmin, ymax - ymin))


def read_manifest(path: str | Path) -> list[Pair]:
    """Pairs from a CSV file with the columns raster, truth and, if wanted, class.

    Paths are relative to the file.

    Raises:
        LabelError: the file cannot be read, or lacks a column or a value.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LabelError(f"{path}: {error} (expected a CSV file).") from error
    if not rows:
        raise LabelError(f"{path}: no rows (expected raster,truth[,class] and a line a raster).")
    pairs = []
    for number, row in enumerate(rows, start=2):
        raster, truth = row.get("raster"), row.get("truth")
        if not raster or not truth:
            raise LabelError(
                f"{path}, line {number}: no {'truth' if raster else 'raster'} (expected the "
                "columns raster, truth and, if wanted, class). Fill it in."
            )
        raster_path = (
            raster if "://" in raster or raster.startswith("/vsi") else path.parent / raster
        )
        pairs.append(Pair(raster_path, path.parent / truth, row.get("class") or None))
    return pairs


def read_truth(
    pair: Pair, position: int, *, class_column: str | None, bands: Sequence[int] | None
) -> tuple[list[Truth], Counter[str]]:
    """The objects of a pair that can be measured on, and how many cannot, by reason.

    Reasons to leave an object aside: "no polygon", "invalid" (rings that cross), "off the raster",
    "too small" (less than 9 px of area), "no data" (less than half of its pixels have some).
    An object that is partly off the raster is cut at the raster's edge and counted as "cut".

    Raises:
        LabelError: the polygons cannot be used.
        RasterError: the raster cannot be read.
    """
    table = read_polygons(pair.truth)
    kinds = kinds_of(table, None if pair.kind else class_column, pair.kind)
    notes: Counter[str] = Counter()
    found = []
    with Raster.open(pair.raster) as raster:
        rows = zip(table.geometry, kinds, strict=True)
        for row, (geometry, kind) in enumerate(rows, start=1):
            shape, note = on_raster(geometry, table.crs, raster.frame, smallest_px=SMALLEST_AREA_PX)
            if shape is not None and _data_share(raster, shape, bands) < LEAST_DATA:
                shape, note = None, "no data"
            if note:
                notes[note] += 1
            if shape is not None:
                found.append(Truth(position, row, kind, shape))
    return found, notes


def _data_share(
    raster: Raster, shape: Polygon | MultiPolygon, bands: Sequence[int] | None
) -> float:
    window, scale = view(raster.window, shape.bounds, margin=0.0, side=_SEEN_PX)
    chip = raster.read(window, bands, scale)
    cells = shapely.transform(shape, lambda xy: (xy - (window.col, window.row)) / scale)
    inside = geometry_mask(
        [cells], chip.valid.shape, Affine.identity(), all_touched=True, invert=True
    )
    return float(chip.valid[inside].mean()) if inside.any() else float(chip.valid.mean())
