"""Where an array of pixels lies on the ground. No other module does this arithmetic."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from affine import Affine
from pyproj import CRS, Geod, Transformer
from pyproj.exceptions import ProjError

from tiles.errors import ProjectionError
from tiles.window import Window

Points = npt.NDArray[np.float64]
Box = tuple[float, float, float, float]

_POINTS_PER_SIDE = 101
_ROUNDING = 1e-3  # px: far above the errors of a transform, far below a pixel


@dataclass(frozen=True, slots=True)
class Frame:
    """A grid of pixels on the ground: its shape, its transform and its CRS.

    Pixel coordinates are (col, row) and corner based: (0, 0) is the top-left corner of the first
    pixel, whose centre is (0.5, 0.5). World coordinates are (x, y), longitude or easting first,
    whatever order the CRS's authority prefers. In a geographic CRS a longitude stands for all its
    turns; the one nearest the frame's centre is taken, so 190 and -170 are the same place.

    Attributes:
        shape: (height, width) in pixels.
        transform: Pixel coordinates to world coordinates. Rotation and south-up are fine.
        crs: The CRS of the world coordinates.

    Raises:
        ValueError: If the shape is not positive or the transform cannot be inverted.
    """

    shape: tuple[int, int]
    transform: Affine
    crs: CRS

    def __post_init__(self) -> None:
        if len(self.shape) != 2 or min(self.shape) < 1:
            raise ValueError(f"Frame shape: {self.shape} (expected positive height and width).")
        a, b, _, d, e, _ = _coefficients(self.transform)
        determinant = a * e - b * d
        if not all(map(math.isfinite, self.transform)) or determinant == 0:
            raise ValueError(
                f"Frame transform: {tuple(self.transform)[:6]} (expected finite and invertible)."
            )

    @property
    def bounds(self) -> Box:
        """(xmin, ymin, xmax, ymax) of the four corners, in the frame's CRS."""
        height, width = self.shape
        corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float64)
        return _envelope(self.to_world(corners))

    @property
    def anchor(self) -> tuple[int, int]:
        """The pixel (col, row) at the origin of the CRS, mostly far off the frame.

        A frame and any whole-pixel crop of it count from the same place on the ground.
        """
        (x, y), *_ = np.floor(self._from_world(np.zeros((1, 2))) + _ROUNDING)
        return int(x), int(y)

    @property
    def pixel_size_m(self) -> tuple[float, float]:
        """Ground length in metres of one pixel step along the columns and along the rows.

        Measured on the CRS's ellipsoid at the frame's centre, so degrees, feet and stretched
        projections all come out in true metres. A CRS without a geodetic base (a local grid) is
        measured on its plane.

        Raises:
            ProjectionError: If the frame's centre is not on the planet.
        """
        return _pixel_size_m(self)

    def to_world(self, colrow: npt.ArrayLike) -> Points:
        """Pixel coordinates (N, 2) to world coordinates (N, 2) in the frame's CRS."""
        a, b, c, d, e, f = _coefficients(self.transform)
        col, row = _points(colrow).T
        return np.column_stack([a * col + b * row + c, d * col + e * row + f])

    def to_pixel(self, xy: npt.ArrayLike, crs: CRS | None = None) -> Points:
        """World coordinates (N, 2) to pixel coordinates (N, 2), which may lie off the frame.

        Args:
            xy: World coordinates, x first.
            crs: The CRS of `xy`; None: the frame's own.

        Raises:
            ProjectionError: If a point has no place in the frame's CRS.
        """
        world = _project(_points(xy), crs or self.crs, self.crs)
        turn = _full_turn(self.crs)
        if turn:
            world[:, 0] += _turns_between(world[:, 0], self._centre[0], turn) * turn
        return self._from_world(world)

    def box_to_pixel(self, box: Box, crs: CRS | None = None) -> Box:
        """The pixel-coordinate envelope (xmin, ymin, xmax, ymax) of a world box.

        The box's outline is followed through the projection, so that its curved sides stay inside
        the envelope.

        Args:
            box: (xmin, ymin, xmax, ymax). In a geographic CRS xmin > xmax means a box across the
                antimeridian.
            crs: The CRS of `box`; None: the frame's own.

        Raises:
            ProjectionError: If the box is inside out, encloses a pole that the frame's CRS cannot
                enclose, or has no place in the frame's CRS.
        """
        source = crs or self.crs
        world = _project(_outline(box, _full_turn(source)), source, self.crs)
        turn = _full_turn(self.crs)
        if turn:
            x = np.unwrap(world[:, 0], period=turn)
            if abs(x[-1] - x[0]) > turn / 2:
                raise ProjectionError(
                    f"Box {box}: goes round a pole (expected a box that a longitude range can "
                    f"hold). Give it in the raster's own CRS, {self.crs.name}."
                )
            middle = np.array([(x.min() + x.max()) / 2])
            world[:, 0] = x + _turns_between(middle, self._centre[0], turn) * turn
        return _envelope(self._from_world(world))

    def crop(self, window: Window, scale: float = 1.0) -> "Frame":
        """The frame of a window of this one, with pixels `scale` times as large.

        Args:
            window: Pixels of this frame; it may reach beyond the frame.
            scale: Pixels of this frame per pixel of the new one; below 1 the new ones are smaller.
                Where `scale` does not divide the window, the last row and column stick out of it.

        Raises:
            ValueError: If the scale is not positive.
        """
        if not 0 < scale < math.inf:
            raise ValueError(f"Scale: {scale} (expected a positive number).")
        a, b, _, d, e, _ = _coefficients(self.transform)
        (x, y), *_ = self.to_world([[window.col, window.row]])
        transform = Affine(a * scale, b * scale, float(x), d * scale, e * scale, float(y))
        return Frame(window.shape_at(scale), transform, self.crs)

    def to_dict(self) -> dict[str, Any]:
        """The frame as JSON values: shape, the six coefficients of the transform, CRS as WKT2."""
        return {
            "shape": list(self.shape),
            "transform": list(_coefficients(self.transform)),
            "crs": self.crs.to_wkt(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The frame that `to_dict` described."""
        height, width = values["shape"]
        return cls((height, width), Affine(*values["transform"]), CRS.from_wkt(values["crs"]))

    @property
    def _centre(self) -> Points:
        height, width = self.shape
        centre: Points = self.to_world([[width / 2, height / 2]])[0]
        return centre

    def _from_world(self, world: Points) -> Points:
        a, b, c, d, e, f = _coefficients(self.transform)
        x, y = (world - (c, f)).T
        determinant = a * e - b * d
        return np.column_stack([e * x - b * y, a * y - d * x]) / determinant


def _coefficients(transform: Affine) -> tuple[float, float, float, float, float, float]:
    a, b, c, d, e, f, *_ = transform
    return a, b, c, d, e, f


def _points(values: npt.ArrayLike) -> Points:
    """An own copy of N points."""
    points = np.array(values, np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"Points: shape {points.shape} (expected (N, 2)).")
    return points


def _envelope(points: Points) -> Box:
    xmin, ymin = points.min(axis=0)
    xmax, ymax = points.max(axis=0)
    return float(xmin), float(ymin), float(xmax), float(ymax)


def _outline(box: Box, turn: float) -> Points:
    """Points along the closed outline of a box, whose longitudes repeat after `turn` (0: never)."""
    xmin, ymin, xmax, ymax = box
    if xmin > xmax and turn:
        xmax += turn
    if not (xmin <= xmax and ymin <= ymax):
        raise ProjectionError(
            f"Box {box}: inside out (expected xmin <= xmax and ymin <= ymax). Order its corners."
        )
    x, y = (np.linspace(*ends, _POINTS_PER_SIDE) for ends in ((xmin, xmax), (ymin, ymax)))
    left, right, low, high = (np.full(_POINTS_PER_SIDE, edge) for edge in (xmin, xmax, ymin, ymax))
    sides = [(x, low), (right, y), (x[::-1], high), (left, y[::-1])]
    return np.concatenate([np.column_stack(side) for side in sides])


@lru_cache(maxsize=64)
def _transformer(source: CRS, target: CRS) -> Transformer | None:
    """The way from one CRS to another; None where they are the same."""
    if source.equals(target, ignore_axis_order=True):
        return None
    try:
        return Transformer.from_crs(source, target, always_xy=True)
    except ProjError as error:
        raise ProjectionError(
            f"Coordinates in {source.name}: no way to {target.name} (expected a CRS of the same "
            "planet, tied to it). Give them in the raster's own CRS."
        ) from error


def _project(xy: Points, source: CRS, target: CRS) -> Points:
    transformer = _transformer(source, target)
    projected = xy if transformer is None else np.column_stack(transformer.transform(*xy.T))
    bad = np.flatnonzero(~np.isfinite(projected).all(axis=1))
    if bad.size:
        x, y = xy[bad[0]].tolist()
        raise ProjectionError(
            f"Point ({x}, {y}) in {source.name}: no place in {target.name} ({bad.size} of "
            f"{len(xy)} points have none). Check the coordinates' order (x, y) and their CRS."
        )
    return projected


@lru_cache(maxsize=64)
def _full_turn(crs: CRS) -> float:
    """After what longitude a geographic CRS repeats, in its unit; 0 for any other CRS."""
    if not crs.is_geographic:
        return 0.0
    return round(2 * math.pi / crs.axis_info[0].unit_conversion_factor, 9)


def _turns_between(longitudes: Points, centre: float, turn: float) -> Points:
    """How many turns to add to each longitude to come nearest the centre; the far edge stays."""
    turns: Points = np.rint((centre - longitudes) / turn * (1 - 1e-9))
    return turns


@lru_cache(maxsize=64)
def _geodesy(crs: CRS) -> tuple[CRS, Geod] | None:
    """The latitudes and longitudes beneath a CRS and their ellipsoid; None where it has none."""
    base, geod = crs.geodetic_crs, crs.get_geod()
    if base is None or geod is None or not base.is_geographic:
        return None
    return base, geod


@lru_cache(maxsize=1024)
def _pixel_size_m(frame: Frame) -> tuple[float, float]:
    height, width = frame.shape
    col, row = width / 2, height / 2
    ends = frame.to_world([[col - 0.5, row], [col + 0.5, row], [col, row - 0.5], [col, row + 0.5]])
    geodesy = _geodesy(frame.crs)
    if geodesy is None:
        unit = frame.crs.axis_info[0].unit_conversion_factor if frame.crs.axis_info else 1.0
        along_cols, along_rows = np.hypot(*(ends[1::2] - ends[::2]).T) * unit
    else:
        base, geod = geodesy
        degrees = _project(ends, frame.crs, base) * (360 / _full_turn(base))
        start, stop = degrees[::2].T, degrees[1::2].T
        _, _, (along_cols, along_rows) = geod.inv(*start, *stop)
    return float(along_cols), float(along_rows)
