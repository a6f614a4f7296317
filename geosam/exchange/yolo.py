"""YOLO segmentation labels: a text file an image, a line an outline.

The format knows one ring an object. A hole is joined to its outline by a bridge without width, so
that the ring goes round both; of an object in several parts each becomes a line.
"""

from collections.abc import Sequence

import numpy as np
import shapely
from shapely import LineString, Polygon
from shapely.ops import substring

from geosam.exchange.patches import Patch

_DIGITS = 6  # of shares of the image's side


def labels(patch: Patch, kinds: Sequence[str]) -> str:
    """The label file of an image: class number from 0, then x and y as shares of its sides."""
    height, width = patch.window.shape
    lines = []
    for piece in patch.pieces:
        for part in shapely.get_parts(piece.shape):
            ring = shapely.get_coordinates(one_ring(part))[:-1] / (width, height)
            numbers = " ".join(f"{v:.{_DIGITS}g}" for v in ring.clip(0, 1).ravel().tolist())
            lines.append(f"{kinds.index(piece.kind)} {numbers}\n")
    return "".join(lines)


def data_yaml(kinds: Sequence[str], splits: Sequence[str]) -> str:
    """What `data.yaml` says; without a val split, val is train, as the format wants one."""
    names = "".join(f'  {i}: "{_quoted(kind)}"\n' for i, kind in enumerate(kinds))
    val = "val" if "val" in splits else "train"
    return f"path: .\ntrain: images/train\nval: images/{val}\nnames:\n{names}"


def one_ring(polygon: Polygon) -> LineString:
    """The outline of a polygon, going round its holes over bridges; closed.

    The nearest hole is joined first, so a bridge never crosses another hole.
    """
    polygon = shapely.orient_polygons(polygon)
    ring = LineString(polygon.exterior)
    holes = [LineString(hole) for hole in polygon.interiors]
    while holes:
        hole = min(holes, key=ring.distance)
        holes.remove(hole)
        start, end = shapely.get_parts(
            shapely.multipoints(shapely.shortest_line(ring, hole).coords)
        )
        ring = LineString(np.concatenate([_from(ring, start), _from(hole, end), [start.coords[0]]]))
    return ring


def _from(ring: LineString, point: shapely.Point) -> np.ndarray:
    """The coordinates of a closed ring, beginning and ending at a point of it."""
    place = ring.project(point)
    pieces = [substring(ring, place, ring.length), substring(ring, 0, place)]
    middle = [np.array(piece.coords) for piece in pieces if isinstance(piece, LineString)]
    ends = np.array(point.coords)
    return np.concatenate([ends, middle[0][1:], *(piece[1:] for piece in middle[1:])])


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
