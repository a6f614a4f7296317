"""Prompts from the map to the raster's pixels, and from there to a tile's. The half pixel is here.

Raster and tile coordinates are corner based: (0, 0) is the first pixel's corner. Models count from
pixel centres (SAM adds the half itself), so 0.5 is taken off, once, in `on_tile`.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from pyproj import CRS
from rasterio.features import rasterize
from shapely import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from geosam.prompts import Prompt
from geosam.protocol import MASK_LOGIT, TilePrompt
from tiles import Frame, Tile

OUTLINE_STEPS = 64  # pieces that a shape's longer side is cut into before reprojection

Points = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class PixelPrompt:
    """A prompt in the raster's pixels, cut to the raster.

    Attributes:
        id: of the prompt.
        points: (N, 2).
        labels: (N,).
        box: (xmin, ymin, xmax, ymax), or None.
        mask: the polygon, or None.
        clipped: whether part of the prompt was off the raster.
    """

    id: str
    points: Points
    labels: npt.NDArray[np.int64]
    box: tuple[float, float, float, float] | None
    mask: Polygon | MultiPolygon | None
    clipped: bool

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(xmin, ymin, xmax, ymax) of what says where the object is."""
        if self.box is not None:
            return self.box
        if self.mask is not None:
            xmin, ymin, xmax, ymax = self.mask.bounds
            return xmin, ymin, xmax, ymax
        foreground = self.points[self.labels == 1]
        points = foreground if len(foreground) else self.points
        (xmin, ymin), (xmax, ymax) = points.min(0).tolist(), points.max(0).tolist()
        return xmin, ymin, xmax, ymax

    @property
    def is_click(self) -> bool:
        """A lone point, which says nothing of the object's extent."""
        return len(self.points) == 1 and self.box is None and self.mask is None

    @property
    def is_clicks(self) -> bool:
        """Points alone, which bound the object's extent from below at most."""
        return self.box is None and self.mask is None

    @property
    def first_click(self) -> "PixelPrompt | None":
        """The first point on the object, as a prompt of its own."""
        on = self.labels == 1
        if not on.any():
            return None
        return PixelPrompt(self.id, self.points[on][:1], self.labels[on][:1], None, None, False)

    @property
    def anchor(self) -> tuple[float, float, float, float]:
        """Bounds of one place on the object: a point on it, or the middle of its extent."""
        foreground = self.points[self.labels == 1]
        if len(foreground):
            x, y = foreground[0].tolist()
        else:
            xmin, ymin, xmax, ymax = self.bounds
            x, y = (xmin + xmax) / 2, (ymin + ymax) / 2
        return x, y, x, y

    def is_within(self, tile: Tile) -> bool:
        """Whether a tile sees all of the bounds."""
        xmin, ymin, xmax, ymax = self.bounds
        read = tile.read
        return read.col <= xmin and read.row <= ymin and xmax <= read.right and ymax <= read.bottom

    @property
    def side(self) -> float:
        """Longer side of the bounds, px; 0 for a single click."""
        xmin, ymin, xmax, ymax = self.bounds
        return max(xmax - xmin, ymax - ymin)


def to_pixels(prompt: Prompt, crs: CRS | None, frame: Frame) -> PixelPrompt | None:
    """A prompt in the raster's pixels; None if nothing of it lies on the raster.

    Args:
        prompt: in world coordinates.
        crs: of these; None: the frame's own.
        frame: the raster's.

    Raises:
        ProjectionError: a coordinate has no place in the raster's CRS.
    """
    height, width = frame.shape
    everything = shapely.box(0, 0, width, height)
    points, labels, box, mask = prompt.points, prompt.labels, None, None
    clipped = False
    if len(points):
        points = frame.to_pixel(points, crs)
        inside = ((points >= 0) & (points <= (width, height))).all(1)
        clipped |= not inside.all()
        points, labels = points[inside], labels[inside]
    if prompt.box is not None:
        whole = frame.box_to_pixel(prompt.box, crs)
        xmin, ymin = max(whole[0], 0.0), max(whole[1], 0.0)
        xmax, ymax = min(whole[2], float(width)), min(whole[3], float(height))
        box = (xmin, ymin, xmax, ymax) if xmin < xmax and ymin < ymax else None
        clipped |= box != whole
    if prompt.mask is not None:
        whole_mask = outline_to_pixels(prompt.mask, crs, frame)
        part = _polygonal(shapely.intersection(shapely.make_valid(whole_mask), everything))
        mask = None if part.is_empty else part
        clipped |= not everything.covers(whole_mask)
    if not (labels == 1).any() and box is None and mask is None and (clipped or not len(labels)):
        return None
    return PixelPrompt(prompt.id, points, labels, box, mask, clipped)


def outline_to_pixels(shape: BaseGeometry, crs: CRS | None, frame: Frame) -> BaseGeometry:
    """A shape in the raster's pixels, its sides followed through the projection; maybe not valid.

    Raises:
        ProjectionError: a coordinate has no place in the raster's CRS.
    """
    xmin, ymin, xmax, ymax = shape.bounds
    step = max(xmax - xmin, ymax - ymin) / OUTLINE_STEPS
    dense = shapely.segmentize(shape, step) if step > 0 else shape
    moved: BaseGeometry = shapely.transform(dense, lambda xy: frame.to_pixel(xy, crs))
    return moved


def on_tile(prompt: PixelPrompt, tile: Tile, size: int, logits_size: int) -> TilePrompt:
    """The part of a prompt that lies on a tile, in the model's pixels.

    A polygon gives its mask and, if there is no box, its extent as the box.
    """
    origin = np.array([tile.read.col, tile.read.row], np.float64)
    points = (prompt.points - origin) / tile.scale
    inside = ((points >= 0) & (points <= size)).all(1)
    box = mask = None
    if prompt.box is not None or prompt.mask is not None:
        corners = (np.reshape(prompt.bounds, (2, 2)) - origin) / tile.scale
        box = corners.clip(0, size).ravel()
    if prompt.mask is not None:
        cell = tile.scale * size / logits_size
        shape = shapely.transform(prompt.mask, lambda xy: (xy - origin) / cell)
        covered = rasterize([shape], (logits_size, logits_size), all_touched=True, dtype="uint8")
        mask = np.where(covered > 0, MASK_LOGIT, -MASK_LOGIT).astype(np.float32)
    return TilePrompt(
        (points[inside] - 0.5).astype(np.float32),
        prompt.labels[inside],
        None if box is None else (box - 0.5).astype(np.float32),
        mask,
    )


def _polygonal(geometry: shapely.Geometry) -> Polygon | MultiPolygon:
    """The areas among what an intersection returned."""
    parts = [part for part in shapely.get_parts(geometry) if isinstance(part, Polygon)]
    return parts[0] if len(parts) == 1 else MultiPolygon(parts)
