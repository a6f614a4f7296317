"""One tile from features to outlines, kept in a file of the work folder.

A tile outlines the objects that it sees whole. Of an object cut by its edge a tile of a grid keeps
the logits, for `stitching` to join with those of its neighbours.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import shapely
from shapely import MultiPolygon

from geosam.automatic.candidates import CONFIDENT, Tier, click, find
from geosam.automatic.objects import Arrays, Numbers, Objects, Row, load, save
from geosam.automatic.tiling import Tiling
from geosam.masks import Mask
from geosam.placement import Points
from geosam.polygons import DEFAULT_TOLERANCE, outline_cells
from geosam.protocol import Floats
from geosam.refining import FINEST, corner_and_cell, refine
from geosam.scene import EncodedTile, Scene
from geosam.tile_masks import Cells, TileMasks
from tiles import Tile, Window

DENSEST = 0.5  # scale below which points lie no closer on the ground: 1/4 would cost the fourfold


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What is asked of a scene, and where its tiles' results are kept.

    Attributes:
        scene: raster and features.
        scales: raster px per tile px, finest first.
        tiling: where its tiles lie.
        step_px: between the points of a tile, tile px.
        tiers: thresholds, strictest first; the later ones only where ground is left.
        area: of interest, raster px; None: everywhere.
        folder: for the results.
    """

    scene: Scene
    scales: tuple[float, ...]
    tiling: Tiling
    step_px: int
    tiers: tuple[Tier, ...]
    area: shapely.Geometry | None
    folder: Path

    def rows(self, scale: float) -> Iterator[list[Tile]]:
        """The tiles of a scale whose cores reach into the area, from the top down."""
        for some in self.tiling.rows(scale):
            tiles = list(some)
            if self.area is not None:
                cores = [(t.core.col, t.core.row, t.core.right, t.core.bottom) for t in tiles]
                reached = shapely.intersects(self.area, shapely.box(*np.array(cores).T))
                tiles = [tile for tile, near in zip(tiles, reached, strict=True) if near]
            if tiles:
                yield tiles

    def finer(self, scale: float) -> tuple[float, ...]:
        """The scales below one."""
        return tuple(other for other in self.scales if other < scale)

    def sizes_px(self, scale: float) -> tuple[float, float]:
        """Longer side, raster px, that objects of a scale are above, and have at most.

        The next finer scale always saw whole what is no larger than the first.
        """
        finer = self.finer(scale)
        above = self.tiling.whole_px(finer[-1]) if finer else 0.0
        return above, self.tiling.largest_px(scale)

    def keeps_cut(self, scale: float) -> bool:
        """Whether an object is kept of which a part is not seen at a scale.

        So it is where no coarser scale can show it whole; and where all ground is to be covered,
        where it stands in for a better one.
        """
        return len(self.tiers) > 1 or scale == self.scales[-1]

    def path(self, tile: Tile) -> Path:
        """The file of a tile's result."""
        row, col = tile.index
        return self.folder / f"{tile.scale:g}" / f"{row}.{col}.npz"


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """What a tile sees of an object that its edge cuts.

    Attributes:
        logits: (h, w) float32 cells.
        valid: (h * k, w * k) bool, tile px with data, at k px a cell.
        corner: (col, row) of the first cell, px of the tile.
        tile: in the grid.
        score: the model's.
        stability: see `Objects`.
        tier: see `Objects`.
    """

    logits: Floats
    valid: Cells
    corner: tuple[int, int]
    tile: Tile
    score: float
    stability: float
    tier: int


@dataclass(frozen=True, slots=True, eq=False)
class TileResult:
    """The objects of one tile: those seen whole, and pieces of others."""

    whole: Objects
    pieces: list[Piece]


_NOTHING = TileResult(Objects.none(), [])


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """What of a plan concerns one tile.

    Attributes:
        tile: in the grid.
        points: (N, 2) raster px, at which it is prompted.
        sizes_px: see `Plan`.
        cut: what becomes of an object that the tile's edge cuts.
        tiers: see `Plan`.
        scales: see `Plan`.
    """

    tile: Tile
    points: Points
    sizes_px: tuple[float, float]
    cut: Literal["join", "keep", "drop"]
    tiers: tuple[Tier, ...]
    scales: tuple[float, ...]


def ask(tile: Tile, plan: Plan) -> Asked:
    """What is asked of a tile, when the finer scales have been worked on."""
    step_px = round(plan.step_px * max(1, DENSEST / tile.scale))
    points = plan.tiling.points(tile, step_px, plan.area)
    unseen: Literal["keep", "drop"] = "keep" if plan.keeps_cut(tile.scale) else "drop"
    return Asked(
        tile, _unexplained(points, tile, plan), plan.sizes_px(tile.scale),
        "join" if plan.tiling.joins else unseen, plan.tiers, plan.scales,
    )  # fmt: skip


def work_on(scene: Scene, some: Sequence[Asked]) -> Iterator[tuple[Tile, Arrays]]:
    """Each tile, encoded if it must be, with its objects as `keep` takes them."""
    scene.ensure([asked.tile for asked in some])
    size = scene.model.batch
    for batch in (some[start : start + size] for start in range(0, len(some), size)):
        encoded = iter(scene.encoded([asked.tile for asked in batch if len(asked.points)]))
        for asked in batch:
            result = _find(scene, asked, next(encoded)) if len(asked.points) else _NOTHING
            yield asked.tile, result.whole.to_arrays() | _packed(result.pieces)


def keep(tile: Tile, arrays: Arrays, plan: Plan) -> None:
    """Write the objects of a tile into its file."""
    path = plan.path(tile)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, arrays)


def result_of(tile: Tile, plan: Plan) -> TileResult | None:
    """What was kept of a tile; None if it is still to be worked on."""
    arrays = load(plan.path(tile))
    if arrays is None:
        return None
    return TileResult(Objects.from_arrays(arrays), list(_unpacked(arrays, tile)))


def _find(scene: Scene, asked: Asked, encoded: EncodedTile) -> TileResult:
    model, tile, points = scene.model, asked.tile, asked.points
    if encoded.features is None:
        return _NOTHING
    maker = TileMasks.on(tile, encoded, scene)
    cols, rows = ((points - (tile.read.col, tile.read.row)) // tile.scale).astype(int).T
    points = points[maker.valid[rows, cols]]
    found = find(model, encoded.features, tile, points, maker.data, asked.tiers)
    whole: list[Row] = []
    pieces: list[Piece] = []
    cell = model.size / model.logits_size * tile.scale  # raster px
    above, most = asked.sizes_px
    for logits, score, tier, point in zip(
        found.logits, found.scores.tolist(), found.tiers.tolist(), found.points, strict=True
    ):
        mask = maker.mask(click(points[point]), logits, score, 0)
        if mask.logits is None:
            continue
        side = _side(mask.logits) * cell
        if not above < side <= most:
            continue
        corner = _corner(mask, maker)
        truncated = mask.status == "truncated"
        if truncated and asked.cut == "join":
            pieces.append(_piece(mask, mask.logits, logits, maker, corner, tier))
        if truncated and asked.cut != "keep":
            continue
        col, row = corner
        place = (tile.read.col + col * tile.scale, tile.read.row + row * tile.scale)
        shape = outline(scene, asked.scales, mask.logits, mask.valid, place, cell, tile.scale)
        if not shape.is_empty:
            quality = (mask.score, mask.stability, tier)
            whole.append((shape, *quality, tile.scale, tile.index, truncated))
    return TileResult(Objects.of(whole), pieces)


def outline(
    scene: Scene,
    scales: Sequence[float],
    logits: Floats,
    valid: Cells | None,
    place: tuple[float, float],
    cell: float,
    scale: float,
    tolerance: float = DEFAULT_TOLERANCE,
) -> MultiPolygon:
    """The polygons of an object, raster px; if it was found at a coarse scale, refined.

    Args:
        scene: where it was found.
        scales: at which it may be refined.
        logits: (h, w).
        valid: (h * k, w * k), where there is data; None: everywhere.
        place: the first cell's corner, raster px.
        cell: its side, raster px.
        scale: at which the object was found.
        tolerance: how far the outline may move to get simpler, cells.
    """
    if scale > FINEST:
        (height, width), (col, row) = logits.shape, place
        window = Window(int(col), int(row), round(width * cell), round(height * cell))
        frame = scene.frame.crop(window, cell)
        found = Mask("", "ok", logits, frame, valid, np.nan, np.nan, "", scale)
        mask = refine(scene, found, scales, scene.ensure)
        if mask is not found and mask.logits is not None:
            place, cell = corner_and_cell(scene, mask)
            logits, valid, tolerance = mask.logits, mask.valid, DEFAULT_TOLERANCE
    cells = outline_cells(logits, valid, tolerance)
    shape: MultiPolygon = shapely.transform(cells, lambda xy: xy * cell + place)
    return shape


def _unexplained(points: Points, tile: Tile, plan: Plan) -> Points:
    """Points that lie on no confident object of a finer scale; reads one finer tile at a time."""
    for scale in plan.finer(tile.scale):
        for finer in plan.tiling.over(tile, scale):
            result = result_of(finer, plan) if len(points) else None
            if result is None:
                continue
            known = result.whole
            sure = known.outlines[(known.scores >= CONFIDENT) & (known.tiers == 0)]
            under, _ = shapely.STRtree(sure).query(shapely.points(points), predicate="intersects")
            points = np.delete(points, np.unique(under), axis=0)
    return points


def _side(logits: Floats) -> int:
    """The longer side of what is above 0, cells."""
    inside = logits > 0
    return max(int(np.ptp(np.flatnonzero(inside.any(axis)))) + 1 for axis in (0, 1))


def _corner(mask: Mask, maker: TileMasks) -> tuple[int, int]:
    """(col, row) of a mask's first cell, px of its tile."""
    (xy,) = maker.frame.to_pixel(mask.frame.to_world([[0.0, 0.0]]))
    col, row = np.rint(xy)
    return int(col), int(row)


def _piece(
    mask: Mask, kept: Floats, logits: Floats, maker: TileMasks, corner: tuple[int, int], tier: int
) -> Piece:
    """What of a mask is needed to join it; whole tile px count as valid, others may lack data.

    Small holes stay as they were in the tile's logits (s, s): one in a tile's corner is not a hole,
    but part of the ground beyond.
    """
    left, top = corner
    k = len(maker.valid) // len(maker.data)
    height, width = kept.shape
    raw = logits[top // k : top // k + height, left // k : left // k + width]
    valid = maker.whole[top : top + height * k, left : left + width * k]
    part = np.minimum(kept, raw)
    return Piece(part, valid, corner, maker.tile, mask.score, mask.stability, tier)


def _packed(pieces: list[Piece]) -> Arrays:
    shapes = [(*piece.logits.shape, piece.valid.shape[0]) for piece in pieces]
    numbers: Numbers = np.array(
        [(p.score, p.stability, p.tier, *p.corner) for p in pieces], np.float64
    ).reshape(-1, 5)
    logits = [piece.logits.astype(np.float16).ravel() for piece in pieces]
    valid = [piece.valid.ravel() for piece in pieces]
    return {
        "piece_shapes": np.array(shapes, np.int64).reshape(-1, 3),
        "piece_numbers": numbers,
        "piece_logits": np.concatenate([*logits, np.empty(0, np.float16)]),
        "piece_valid": np.packbits(np.concatenate([*valid, np.empty(0, bool)])),
    }


def _unpacked(arrays: Arrays, tile: Tile) -> Iterator[Piece]:
    logits = arrays["piece_logits"].astype(np.float32)
    valid = np.unpackbits(arrays["piece_valid"].astype(np.uint8)).astype(bool)
    cell = pixel = 0
    for (height, width, pixels_high), numbers in zip(
        arrays["piece_shapes"].tolist(), arrays["piece_numbers"].tolist(), strict=True
    ):
        k = pixels_high // height
        score, stability, tier, col, row = numbers
        cells, pixels = height * width, height * width * k * k
        yield Piece(
            logits[cell : cell + cells].reshape(height, width),
            valid[pixel : pixel + pixels].reshape(height * k, width * k),
            (int(col), int(row)),
            tile,
            score,
            stability,
            int(tier),
        )
        cell, pixel = cell + cells, pixel + pixels
