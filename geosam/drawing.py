"""A picture of the result: the image, the outlines over it and the prompts."""

import colorsys
from collections.abc import Iterable
from math import ceil
from pathlib import Path
from typing import TypeAlias

import geopandas
import numpy as np
import numpy.typing as npt
import shapely
from PIL import Image, ImageDraw
from shapely import LineString
from shapely.geometry.base import BaseGeometry
from shapely.ops import substring

from geosam.drafts import draft
from geosam.errors import OutputError
from geosam.prompts import FOREGROUND, PromptSet
from tiles.frame import Frame
from tiles.window import Window

Color: TypeAlias = tuple[int, int, int]

MIN_SIDE, MAX_SIDE = 1024, 2048  # px, of the picture's longer side

# Lengths in px of a picture whose longer side is 1024 px.
_LINE, _HALO, _DASH = 2.5, 1.5, 7.0
_CROSS_ARM, _CROSS_LINE = 11.0, 4.0
_OVERSAMPLING = 2

_DARK: Color = (12, 14, 18)
_WHITE: Color = (255, 255, 255)
_ON_OBJECT: Color = (40, 230, 90)
_BESIDE_OBJECT: Color = (255, 60, 60)
_FILL_OPACITY, _HALO_OPACITY = 80, 170  # of 255


def draw(
    chip: npt.NDArray[np.uint8],
    frame: Frame,
    gdf: geopandas.GeoDataFrame,
    path: str | Path,
    prompts: PromptSet | None = None,
) -> None:
    """Draw polygons and prompts over an image into a PNG.

    Each object has a colour of its own. Points are crosses, green on the object and red beside it;
    boxes and polygons that were prompts are dashed. An older file is replaced.

    Args:
        chip: (H, W, 3) uint8, red, green and blue.
        frame: Where the image lies; its shape is the image's.
        gdf: The polygons, in any CRS.
        path: The PNG. Its longer side is the image's, but at least 1024 and at most 2048 px.
        prompts: What to mark; None: nothing.

    Raises:
        OutputError: If the image is not as described, or the file cannot be written.
        ProjectionError: If a prompt has no place in the frame's CRS.
    """
    if chip.dtype != np.uint8 or chip.shape != (*frame.shape, 3):
        raise OutputError(
            f"{path}: image is {chip.dtype} {chip.shape} (expected uint8 {(*frame.shape, 3)})."
        )
    canvas = Canvas(chip)
    polygons = gdf.geometry.to_crs(frame.crs) if len(gdf) else ()
    objects = [
        (shapely.transform(polygon, frame.to_pixel), _color(number))
        for number, polygon in enumerate(polygons)
        if polygon is not None and not polygon.is_empty
    ]
    for shape, color in objects:
        canvas.fill(shape, color)
    canvas.lines([(ring, color) for shape, color in objects for ring in rings_of(shape)])
    if prompts is not None:
        mark(canvas, prompts, frame)
    with draft(path) as place:
        canvas.picture().save(place, format="PNG")


def view(
    whole: Window, bounds: tuple[float, float, float, float], *, margin: float, side: int
) -> tuple[Window, int]:
    """The part of a raster that shows something, and the scale at which a picture can hold it.

    Args:
        whole: The raster's window.
        bounds: (xmin, ymin, xmax, ymax) of what is to be seen, raster px. Where nothing of it is
            on the raster, the whole raster is shown.
        margin: Room on each side, as a share of the bounds' longer side.
        side: Longer side of the picture at most, px.

    Returns:
        A window that `Raster.read` takes at that scale, and the scale, a whole number.
    """
    xmin, ymin, xmax, ymax = bounds
    room = max(xmax - xmin, ymax - ymin) * margin
    spans = (xmin - room, ymin - room, xmax + room, ymax + room)
    left, top, right, bottom = (round(edge) for edge in spans)
    wanted = Window.spanning(left, top, max(right, left + 1), max(bottom, top + 1))
    seen = wanted & whole or whole
    scale = max(1, ceil(max(seen.width, seen.height) / side))
    return Window.spanning(
        seen.col // scale * scale,
        seen.row // scale * scale,
        min(-(-seen.right // scale) * scale, whole.right),
        min(-(-seen.bottom // scale) * scale, whole.bottom),
    ), scale


class Canvas:
    """An image and what is drawn over it, in the image's pixel coordinates."""

    def __init__(
        self, chip: npt.NDArray[np.uint8], side: int | None = None, unit: float | None = None
    ) -> None:
        """Lay an image out.

        Args:
            chip: (H, W, 3) uint8.
            side: The picture's longer side, px; None: the image's, within `MIN_SIDE`, `MAX_SIDE`.
            unit: Picture px per nominal px of line widths; None: `side` / `MIN_SIDE`.
        """
        height, width = chip.shape[:2]
        longer = max(height, width)
        side = side or min(max(longer, MIN_SIDE), MAX_SIDE)
        zoom = side / longer
        size = (max(1, round(width * zoom)), max(1, round(height * zoom)))
        self._image = Image.fromarray(chip).resize(size, Image.Resampling.BICUBIC).convert("RGBA")
        self._layer = Image.new("RGBA", (size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING))
        self._zoom = np.array(self._layer.size) / (width, height)
        self._unit = (unit or side / MIN_SIDE) * _OVERSAMPLING
        self.unit = self._unit / float(self._zoom[0])  # image px per nominal px

    def fill(self, shape: BaseGeometry, color: Color) -> None:
        """Tint an area, sparing its holes."""
        shape = shapely.transform(shape, lambda xy: xy * self._zoom)
        width, height = self._layer.size
        shape = shapely.clip_by_rect(shape, 0, 0, width, height)
        if shape.is_empty:
            return
        xmin, ymin, xmax, ymax = shape.bounds
        left, top = int(xmin), int(ymin)
        stencil = Image.new("L", (ceil(xmax) - left + 1, ceil(ymax) - top + 1))
        pen = ImageDraw.Draw(stencil)
        for polygon in shapely.get_parts(shape):
            for number, ring in enumerate(shapely.get_rings(polygon)):
                corners = (shapely.get_coordinates(ring) - (left, top)).ravel().tolist()
                pen.polygon(corners, fill=0 if number else 255)
        self._layer.paste((*color, _FILL_OPACITY), (left, top), stencil)

    def lines(self, lines: Iterable[tuple[LineString, Color]], width: float = _LINE) -> None:
        """Draw lines, each in its colour, over a dark halo of all of them."""
        lines = list(lines)
        for line, _ in lines:
            self._line(line, (*_DARK, _HALO_OPACITY), width + 2 * _HALO)
        for line, color in lines:
            self._line(line, (*color, 255), width)

    def picture(self) -> Image.Image:
        """The image with everything on it."""
        return Image.alpha_composite(self._image, self._layer.reduce(_OVERSAMPLING)).convert("RGB")

    def _line(self, line: LineString, ink: tuple[int, int, int, int], width: float) -> None:
        corners = (shapely.get_coordinates(line) * self._zoom).ravel().tolist()
        pen = ImageDraw.Draw(self._layer)
        pen.line(corners, fill=ink, width=round(width * self._unit), joint="curve")


def mark(canvas: Canvas, prompts: PromptSet, frame: Frame) -> None:
    """Draw prompts on a canvas whose image lies at `frame`."""
    rings: list[LineString] = []
    crosses: list[tuple[LineString, Color]] = []
    arm = _CROSS_ARM * canvas.unit
    for prompt in prompts:
        if prompt.mask is not None:
            mask = shapely.transform(prompt.mask, lambda xy: frame.to_pixel(xy, prompts.crs))
            rings += rings_of(mask)
        if prompt.box is not None:
            box = shapely.box(*frame.box_to_pixel(prompt.box, prompts.crs))
            rings += rings_of(box)
        points = frame.to_pixel(prompt.points, prompts.crs)
        for (x, y), label in zip(points.tolist(), prompt.labels.tolist(), strict=True):
            color = _ON_OBJECT if label == FOREGROUND else _BESIDE_OBJECT
            crosses.append((LineString([(x - arm, y), (x + arm, y)]), color))
            crosses.append((LineString([(x, y - arm), (x, y + arm)]), color))
    canvas.lines((dash, _WHITE) for ring in rings for dash in _dashes(ring, canvas.unit))
    canvas.lines(crosses, _CROSS_LINE)


def rings_of(shape: BaseGeometry) -> list[LineString]:
    """The outlines of a polygon, or of several, and of their holes."""
    return [ring for part in shapely.get_parts(shape) for ring in (part.exterior, *part.interiors)]


def _dashes(ring: LineString, unit: float) -> list[LineString]:
    """Pieces of a ring, evenly spread, about as long as the gaps between them."""
    count = max(1, round(ring.length / (2 * _DASH * unit)))
    step = ring.length / count
    pieces = (substring(ring, n * step, (n + 0.5) * step) for n in range(count))
    return [piece for piece in pieces if isinstance(piece, LineString)]


def _color(number: int) -> Color:
    """A bright colour, far from those of the numbers next to it."""
    hue = number * (5**0.5 - 1) / 2 % 1
    red, green, blue = colorsys.hls_to_rgb(hue, 0.66, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)
