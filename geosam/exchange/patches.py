"""A raster cut into patches with the polygons on them, divided by place into train and val."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import shapely
from shapely import MultiPolygon, Polygon

from geosam.errors import LabelError
from tiles import Window

BLOCK_PATCHES = (4, 2, 1)  # patches along a block's side; the first that gives blocks enough
SMALLEST_AREA_PX = 1.0  # below, what a patch's edge leaves of a polygon is no label


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """What a patch shows of a polygon.

    Attributes:
        row: of the polygon in its table, from 1.
        kind: its class.
        shape: in px of the patch.
        cut: whether the patch's edge cut it.
    """

    row: int
    kind: str
    shape: Polygon | MultiPolygon
    cut: bool


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """A part of the raster that becomes one image.

    Attributes:
        name: of its file, without extension.
        window: of the raster.
        split: "train" or "val".
        pieces: at least one.
    """

    name: str
    window: Window
    split: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """A polygon in px of the raster, with its row and its class."""

    row: int
    kind: str
    shape: Polygon | MultiPolygon


def cut_patches(  # each is a thing people set
    whole: Window,
    polygons: Sequence[Labelled],
    *,
    stem: str,
    size: int,
    overlap: int,
    val_share: float,
    notes: Counter[str],
) -> list[Patch]:
    """Patches that show a polygon; those without one are left out.

    The raster is divided into blocks of about 4 x 4 patches (2 x 2 or single ones where it is
    small). A whole block is train or val, and no patch crosses its edge, so no pixel is in both.
    Where a block is no whole number of patches wide, its last patches reach back over others.

    Args:
        whole: the raster.
        polygons: on it.
        stem: how the patches' names begin.
        size: side of a patch, px; less only where a block is smaller.
        overlap: of neighbours in one block, px.
        val_share: share of the polygons that val is to hold, about; 0: no val.
        notes: where "slivers" are counted: rests of polygons below 1 px of area, left out.

    Raises:
        LabelError: all polygons lie in one block, so that val cannot be another place.
    """
    tree = shapely.STRtree([polygon.shape for polygon in polygons])
    blocks, owners = _blocks(whole, polygons, tree, size, overlap, val_share)
    val = _held_out(owners, val_share)
    patches = []
    for number, block in enumerate(blocks):
        split = "val" if number in val else "train"
        for window in windows_of(block, size, overlap):
            found = tree.query(_box(window))
            pieces = [_piece(polygons[i], window) for i in sorted(found.tolist())]
            kept = tuple(piece for piece in pieces if piece.shape.area >= SMALLEST_AREA_PX)
            notes["slivers"] += sum(1 for p in pieces if 0 < p.shape.area < SMALLEST_AREA_PX)
            if kept:
                name = f"{stem}_{window.row:06}_{window.col:06}"
                patches.append(Patch(name, window, split, kept))
    return patches


def windows_of(block: Window, size: int, overlap: int) -> list[Window]:
    """Windows of one size that cover a block; the last ones reach back where they do not fit."""
    return [
        Window(col, row, min(size, block.width), min(size, block.height))
        for row in _starts(block.row, block.height, size, overlap)
        for col in _starts(block.col, block.width, size, overlap)
    ]


def _starts(first: int, length: int, size: int, overlap: int) -> list[int]:
    if length <= size:
        return [first]
    count = math.ceil((length - overlap) / (size - overlap))
    return [first + min(i * (size - overlap), length - size) for i in range(count)]


def _blocks(  # all of them bear on the division
    whole: Window,
    polygons: Sequence[Labelled],
    tree: shapely.STRtree,
    size: int,
    overlap: int,
    val_share: float,
) -> tuple[list[Window], list[int]]:
    """Blocks that partition the raster, and for each polygon the one that holds most of it."""
    wanted = math.ceil(1 / min(val_share, 1 - val_share)) if val_share else 1
    for patches in BLOCK_PATCHES:
        side = patches * (size - overlap) + overlap
        blocks = [
            Window.spanning(left, top, right, bottom)
            for top, bottom in pairwise(_edges(whole.height, side, size))
            for left, right in pairwise(_edges(whole.width, side, size))
        ]
        owners = [-1] * len(polygons)
        most = [0.0] * len(polygons)
        for number, block in enumerate(blocks):
            for i in tree.query(_box(block)).tolist():
                area = float((polygons[i].shape & _box(block)).area)
                if area > most[i]:
                    owners[i], most[i] = number, area
        if len(set(owners)) >= wanted:
            break
    if val_share and len(set(owners)) < 2:
        raise LabelError(
            f"Polygons: all in one block of {side} px (expected at least two places, so that "
            "validation is not on the ground of training). Choose smaller images, or no "
            "validation."
        )
    return blocks, owners


def _edges(length: int, side: int, size: int) -> list[int]:
    """Where blocks begin and the last one ends; a rest below half a patch joins the last one."""
    edges = list(range(0, length, side))
    if len(edges) > 1 and length - edges[-1] < size / 2:
        edges.pop()
    return [*edges, length]


def _held_out(owners: Sequence[int], share: float) -> set[int]:
    """Blocks for val: drawn, always the same, until they hold the share; one is left at least."""
    if not share:
        return set()
    counts = Counter(owners)
    order = np.random.default_rng(0).permutation(sorted(counts)).tolist()
    chosen: set[int] = set()
    for number in order[:-1]:
        held = sum(counts[block] for block in chosen)
        after = held + counts[number]
        if not chosen or abs(after - share * len(owners)) < abs(held - share * len(owners)):
            chosen.add(number)
    return chosen


def _piece(polygon: Labelled, window: Window) -> Piece:
    frame = _box(window)
    inside = frame.covers(polygon.shape)
    shape = polygon.shape if inside else polygonal(polygon.shape & frame)
    moved = shapely.transform(shape, lambda xy: xy - (window.col, window.row))
    return Piece(polygon.row, polygon.kind, moved, not inside)


def polygonal(geometry: shapely.Geometry) -> Polygon | MultiPolygon:
    """The areas among what a geometry operation returned."""
    parts = shapely.get_parts(shapely.get_parts(geometry))
    areas = [part for part in parts if isinstance(part, Polygon) and not part.is_empty]
    return areas[0] if len(areas) == 1 else MultiPolygon(areas)


def _box(window: Window) -> Polygon:
    return shapely.box(window.col, window.row, window.right, window.bottom)
