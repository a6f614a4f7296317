"""What the user points at: points, boxes and polygons in map coordinates, one prompt an object."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeAlias

import geopandas
import numpy as np
import numpy.typing as npt
import pyogrio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj import CRS
from pyproj.exceptions import CRSError
from shapely import MultiPoint, MultiPolygon, Point, Polygon
from shapely.geometry.base import BaseGeometry

from geosam.errors import PromptError

Box: TypeAlias = tuple[float, float, float, float]
Polygonal: TypeAlias = Polygon | MultiPolygon
CRSLike: TypeAlias = CRS | str | int
Rows: TypeAlias = Sequence[Any] | npt.NDArray[Any]

FOREGROUND, BACKGROUND = 1, 0

_ID_COLUMNS = ("id", "prompt_id")
_LABELS = {
    **dict.fromkeys(("1", "true", "fg"), FOREGROUND),
    **dict.fromkeys(("0", "false", "bg"), BACKGROUND),
}


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """One object, named by points, a box, a mask, or any of them together.

    Attributes:
        id: Name of the object.
        points: (N, 2) float64 world coordinates, x first; N may be 0.
        labels: (N,) int64, 1 where a point is on the object, 0 where it is not.
        box: (xmin, ymin, xmax, ymax) world coordinates. In a geographic CRS xmin > xmax means a
            box across the antimeridian.
        mask: Polygon or MultiPolygon in world coordinates: roughly the object.

    Raises:
        PromptError: If there is nothing in it, or something that is not as described above.
    """

    id: str
    points: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))
    labels: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    box: Box | None = None
    mask: Polygonal | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", _read_only(self.points, np.float64, self))
        object.__setattr__(self, "labels", _read_only(self.labels, np.int64, self))
        self._check_points()
        if self.box is not None:
            self._check_box(self.box)
        if self.mask is not None:
            self._check_mask(self.mask)
        if not len(self.points) and self.box is None and self.mask is None:
            raise PromptError(
                f"{self}: empty (expected points, a box or a mask). Give it one or leave it out."
            )

    def __str__(self) -> str:
        return f"Prompt {self.id!r}"

    def _check_points(self) -> None:
        if self.points.ndim != 2 or self.points.shape[1] != 2:
            raise PromptError(f"{self}: points of shape {self.points.shape} (expected (N, 2)).")
        if not np.isfinite(self.points).all():
            raise PromptError(f"{self}: a point is NaN or infinite (expected finite coordinates).")
        if self.labels.shape != (len(self.points),):
            raise PromptError(
                f"{self}: labels of shape {self.labels.shape} (expected one label for each of "
                f"{len(self.points)} points)."
            )
        if not np.isin(self.labels, (FOREGROUND, BACKGROUND)).all():
            raise PromptError(
                f"{self}: labels {sorted(set(self.labels.tolist()))} (expected 1 for a point on "
                "the object, 0 for a point beside it)."
            )

    def _check_box(self, box: Box) -> None:
        if len(box) != 4 or not all(map(math.isfinite, box)):
            raise PromptError(f"{self}: box {box} (expected 4 finite numbers).")
        object.__setattr__(self, "box", tuple(map(float, box)))
        xmin, ymin, xmax, ymax = box
        if xmin == xmax or ymin >= ymax:
            raise PromptError(
                f"{self}: box {box} has no area or is upside down (expected xmin, ymin, xmax, "
                "ymax). Order its corners."
            )

    def _check_mask(self, mask: BaseGeometry) -> None:
        if not isinstance(mask, Polygon | MultiPolygon) or mask.is_empty:
            raise PromptError(
                f"{self}: mask is {'an empty ' if mask.is_empty else 'a '}{mask.geom_type} "
                "(expected a Polygon or a MultiPolygon)."
            )
        if not mask.is_valid:
            raise PromptError(
                f"{self}: invalid polygon, {shapely.is_valid_reason(mask)} (expected rings that "
                "do not cross). Repair it, for example with shapely.make_valid."
            )


@dataclass(frozen=True, slots=True, eq=False)
class PromptSet:
    """Prompts in one CRS.

    Attributes:
        prompts: The prompts; no two share an id.
        crs: The CRS of their coordinates; None: that of the raster they are used on.

    Raises:
        PromptError: If an id occurs twice, or a box has xmin > xmax in a CRS that is not known to
            be geographic.
    """

    prompts: tuple[Prompt, ...]
    crs: CRS | None = None

    def __post_init__(self) -> None:
        longitudes = self.crs is not None and self.crs.is_geographic
        seen: set[str] = set()
        for prompt in self.prompts:
            if prompt.id in seen:
                raise PromptError(
                    f"{prompt}: its id occurs twice (expected one id an object). Rename one, or "
                    "put everything that belongs to the object in one prompt."
                )
            seen.add(prompt.id)
            if prompt.box and prompt.box[0] > prompt.box[2] and not longitudes:
                raise PromptError(
                    f"{prompt}: box {prompt.box} has xmin > xmax (expected xmin < xmax; only a "
                    "box in longitudes may cross the antimeridian). Order its corners, or name "
                    "its CRS if it is geographic."
                )

    def __len__(self) -> int:
        return len(self.prompts)

    def __iter__(self) -> Iterator[Prompt]:
        return iter(self.prompts)

    def __getitem__(self, index: int) -> Prompt:
        return self.prompts[index]

    @classmethod
    def of(
        cls,
        *,
        points: Rows | None = None,
        boxes: Rows | None = None,
        polygons: Sequence[Polygonal] | None = None,
        labels: Rows | None = None,
        ids: Sequence[str] | None = None,
        crs: CRSLike | None = None,
    ) -> Self:
        """Prompts from plain lists or arrays: every row is an object of its own.

        Args:
            points: One (x, y), or one (K, 2) array for several points on one object, a row.
            boxes: (N, 4) rows of xmin, ymin, xmax, ymax.
            polygons: Rough masks.
            labels: One label a row of `points`, or K of them; None: every point is on its object.
            ids: Names of all rows, points first, then boxes, then polygons; None: "1", "2", ...
            crs: Whatever pyproj understands, such as "EPSG:4326"; None: the raster's own.

        Raises:
            PromptError: If a row is not as described above.
        """
        clicks = [np.atleast_2d(row) for row in _rows(points)]
        marks = [np.ones(len(row), np.int64) for row in clicks] if labels is None else list(labels)
        if len(marks) != len(clicks):
            raise PromptError(
                f"Labels: {len(marks)} (expected one entry for each of {len(clicks)} rows of "
                "points)."
            )
        contents: list[dict[str, Any]] = [
            *(
                {"points": row, "labels": np.atleast_1d(mark)}
                for row, mark in zip(clicks, marks, strict=True)
            ),
            *({"box": tuple(box)} for box in _rows(boxes)),
            *({"mask": polygon} for polygon in _rows(polygons)),
        ]
        names = [str(n) for n in (range(1, len(contents) + 1) if ids is None else ids)]
        if len(names) != len(contents):
            raise PromptError(f"Ids: {len(names)} (expected one for each of {len(contents)} rows).")
        prompts = (Prompt(name, **content) for name, content in zip(names, contents, strict=True))
        return cls(tuple(prompts), _crs(crs))

    @classmethod
    def from_geodataframe(
        cls,
        gdf: geopandas.GeoDataFrame,
        *,
        crs: CRSLike | None = None,
    ) -> Self:
        """Prompts from vector records.

        A Point or MultiPoint gives points; a rectangle along the axes gives a box; any other
        Polygon or MultiPolygon gives a mask. A MultiPolygon of one part counts as that part.
        Heights are left aside. Rows that share an `id` (or `prompt_id`) are one prompt; without
        such a column every row is a prompt of its own, named "1", "2", ... in their order. A
        `label` of 0, "bg" or false marks points that are not on the object; 1, "fg" or true those
        that are, as all are without such a column. Other columns are left aside.

        Args:
            gdf: The records.
            crs: Their CRS, if the GeoDataFrame does not say.

        Raises:
            PromptError: If the CRS is unknown or contradicts `crs`, or a row is not as described
                above. Rows are counted from 1.
        """
        known = _agreed_crs(gdf.crs, _crs(crs))
        drafts: dict[str, _Draft] = defaultdict(_Draft)
        labels = map(_label, gdf["label"] if "label" in gdf.columns else [FOREGROUND] * len(gdf))
        rows = zip(_row_ids(gdf), gdf.geometry, labels, strict=True)
        for row, (name, geometry, label) in enumerate(rows, start=1):
            drafts[name].add(geometry, label, f"Row {row}")
        return cls(tuple(draft.prompt(name) for name, draft in drafts.items()), known)

    @classmethod
    def read(
        cls,
        path: str | Path,
        *,
        layer: str | None = None,
        crs: CRSLike | None = None,
    ) -> Self:
        """Prompts from a vector file: GeoPackage, GeoJSON, Shapefile, FlatGeobuf and others.

        The records are read as `from_geodataframe` reads them.

        Args:
            path: The file.
            layer: Name of the layer; needed only where several hold geometries.
            crs: The CRS, if the file does not say.

        Raises:
            PromptError: If the file cannot be read, the layer is not clear, or the records are
                not prompts.
        """
        try:
            layers = [name for name, kind in pyogrio.list_layers(path) if kind is not None]
            if layer is None and len(layers) != 1:
                raise PromptError(
                    f"{path}: {len(layers)} layers with geometries{': ' if layers else ''}"
                    f"{', '.join(layers)} (expected 1). "
                    f"{'Name one with layer=.' if layers else 'Give a file of points or polygons.'}"
                )
            records = pyogrio.read_dataframe(path, layer=layer or layers[0])
        except (DataSourceError, DataLayerError) as error:
            raise PromptError(f"{path}: {error} (expected a readable vector layer).") from error
        try:
            return cls.from_geodataframe(records, crs=crs)
        except PromptError as error:
            raise PromptError(f"{path}: {error}") from error


@dataclass(slots=True)
class _Draft:
    """What the rows seen so far say of one object."""

    points: list[list[float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    box: Box | None = None
    mask: Polygonal | None = None

    def add(self, geometry: BaseGeometry | None, label: int | None, row: str) -> None:
        if geometry is None or geometry.is_empty:
            raise PromptError(f"{row}: no geometry (expected points or polygons). Remove the row.")
        if isinstance(geometry, Point | MultiPoint):
            self._add_points(geometry, label, row)
        elif isinstance(geometry, Polygon | MultiPolygon):
            self._add_polygon(geometry, label, row)
        else:
            raise PromptError(
                f"{row}: a {geometry.geom_type} (expected points or polygons). Remove the row or "
                "turn it into a polygon."
            )

    def _add_points(self, points: Point | MultiPoint, label: int | None, row: str) -> None:
        if label is None:
            raise PromptError(
                f"{row}: no known label (expected 1, 'fg' or true for a point on the object, 0, "
                "'bg' or false for one beside it)."
            )
        coordinates = shapely.get_coordinates(points).tolist()
        self.points += coordinates
        self.labels += [label] * len(coordinates)

    def _add_polygon(self, polygon: Polygonal, label: int | None, row: str) -> None:
        if label == BACKGROUND:
            raise PromptError(
                f"{row}: a background polygon (expected label 1; only points can be background). "
                "Mark the background with points."
            )
        if isinstance(polygon, MultiPolygon) and len(polygon.geoms) == 1:
            polygon = polygon.geoms[0]
        is_box = isinstance(polygon, Polygon) and polygon.equals(shapely.box(*polygon.bounds))
        if (self.box if is_box else self.mask) is not None:
            raise PromptError(
                f"{row}: a second {'box' if is_box else 'polygon'} for one id (expected at most "
                "one). Give the rows different ids, or merge them."
            )
        if is_box:
            self.box = polygon.bounds
        else:
            self.mask = shapely.force_2d(polygon)

    def prompt(self, name: str) -> Prompt:
        points = np.array(self.points, np.float64).reshape(-1, 2)
        return Prompt(name, points, np.array(self.labels, np.int64), self.box, self.mask)


def _rows(rows: Rows | None) -> list[Any]:
    return [] if rows is None else list(rows)


def _read_only(values: npt.ArrayLike, dtype: type, prompt: Prompt) -> npt.NDArray[Any]:
    """An own, unchangeable copy of an array."""
    array = np.array(values)
    try:
        copy: npt.NDArray[Any] = array.astype(
            dtype, casting="same_kind" if array.size else "unsafe"
        )
    except TypeError as error:
        raise PromptError(
            f"{prompt}: {array.dtype} values (expected {np.dtype(dtype)}). Convert them."
        ) from error
    copy.flags.writeable = False
    return copy


def _crs(crs: CRSLike | None) -> CRS | None:
    try:
        return None if crs is None else CRS.from_user_input(crs)
    except CRSError as error:
        raise PromptError(
            f"CRS: {crs!r} is not known (expected for example 'EPSG:4326')."
        ) from error


def _agreed_crs(own: CRS | None, given: CRS | None) -> CRS:
    crs = own or given
    if crs is None:
        raise PromptError(
            "Prompts: no CRS (expected to know where they lie). Name it with crs=, for example "
            "crs='EPSG:4326'."
        )
    if own and given and not own.equals(given, ignore_axis_order=True):
        raise PromptError(
            f"Prompts: crs={given.to_string()} contradicts their own {own.to_string()} (expected "
            "one CRS). Leave crs= out, or reproject them first."
        )
    return crs


def _row_ids(gdf: geopandas.GeoDataFrame) -> list[str]:
    columns = [name for name in _ID_COLUMNS if name in gdf.columns]
    if len(columns) > 1:
        raise PromptError(
            f"Prompts: columns {' and '.join(columns)} (expected one that names the objects). "
            "Drop the other."
        )
    if not columns:
        return [str(row) for row in range(1, len(gdf) + 1)]
    ids = [_text(value) for value in gdf[columns[0]]]
    if None in ids:
        raise PromptError(
            f"Row {ids.index(None) + 1}: no {columns[0]} (expected one in every row). Fill it in, "
            "or drop the column."
        )
    return [name for name in ids if name is not None]


def _label(cell: object) -> int | None:
    """The label that a table's cell means; None where it means none."""
    return _LABELS.get((_text(cell) or "").lower())


def _text(cell: object) -> str | None:
    """A table's cell as text, whole floats as whole numbers; None where it is null."""
    if cell is None or str(cell) in ("nan", "<NA>"):
        return None
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)
