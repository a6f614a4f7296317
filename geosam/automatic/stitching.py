"""Objects that tiles' edges cut, joined into whole ones at their own scale.

Where two tiles overlap they see the same ground. Two pieces that are each other's best match there
are one object. It is whole if each edge that cut one of them lies within the others.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count, pairwise

import numpy as np
import shapely

from geosam.automatic.objects import Objects
from geosam.automatic.tile_work import Piece, Plan, outline, result_of
from geosam.protocol import Floats
from geosam.tile_masks import Cells, stability
from tiles import Tile, Window

Links = dict[int, set[int]]
"""By the number of a piece, those of its matches."""

JOIN_IOU = 0.7  # of two pieces, where both their tiles see
UNSEEN = -4.0  # logit of cells of a joined object that no piece has


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """A piece on the lattice of its scale, in tile px from where the lattice starts.

    Attributes:
        number: its own.
        piece: the piece.
        window: of its cells.
        inside: (h, w) bool.
        read: what its tile sees.
        core: what its tile answers for.
        edges: left, top, right, bottom: which edges cut it.
    """

    number: int
    piece: Piece
    window: Window
    inside: Cells
    read: Window
    core: Window
    edges: tuple[bool, bool, bool, bool]

    @classmethod
    def of(cls, number: int, piece: Piece, lattice: "_Lattice") -> "_Place":
        """Where a piece lies."""
        raster = lattice.raster
        height, width = piece.valid.shape
        tile = piece.tile
        read = lattice.window(tile.read)
        window = Window(read.col + piece.corner[0], read.row + piece.corner[1], width, height)
        inside = np.kron(piece.logits > 0, np.ones((height // piece.logits.shape[0],) * 2, bool))
        edges = (
            tile.read.col > 0 and window.col <= read.col and bool(inside[:, 0].any()),
            tile.read.row > 0 and window.row <= read.row and bool(inside[0].any()),
            tile.read.right < raster[1]
            and window.right >= read.right
            and bool(inside[:, -1].any()),
            tile.read.bottom < raster[0]
            and window.bottom >= read.bottom
            and bool(inside[-1].any()),
        )
        return cls(number, piece, window, inside, read, lattice.window(tile.core), edges)


@dataclass(frozen=True, slots=True)
class _Lattice:
    """The tile px of a scale.

    Attributes:
        start: (col, row) of the raster px where a tile starts, and so one of these.
        scale: raster px per tile px.
        raster: (height, width), px.
    """

    start: tuple[int, int]
    scale: float
    raster: tuple[int, int]

    @classmethod
    def through(cls, tile: Tile, raster: tuple[int, int]) -> "_Lattice":
        """That on which a tile lies."""
        return cls((tile.read.col, tile.read.row), tile.scale, raster)

    def window(self, window: Window) -> Window:
        """The tile px that share ground with a window of raster px."""
        (left, top), scale = self.start, self.scale
        col, row = int((window.col - left) // scale), int((window.row - top) // scale)
        right, bottom = -int((left - window.right) // scale), -int((top - window.bottom) // scale)
        return Window.spanning(col, row, right, bottom)


def whole_objects(plan: Plan, scale: float) -> Iterator[tuple[float, Objects]]:
    """The whole objects of one scale, from the top down; holds a few rows of tiles at a time.

    Yields:
        A raster row and objects: all objects that come later lie below that row.
    """
    lattice: _Lattice | None = None
    numbers = count()
    waiting: list[_Place] = []
    links: Links = defaultdict(set)
    for row, after in pairwise(chain(plan.rows(scale), [list[Tile]()])):
        results = [result_of(tile, plan) for tile in row]
        found = [result.whole for result in results if result is not None]
        pieces = [piece for result in results if result is not None for piece in result.pieces]
        if lattice is None:
            lattice = _Lattice.through(row[0], plan.scene.frame.shape)
        new = [_Place.of(next(numbers), piece, lattice) for piece in pieces]
        waiting += new
        _link(new, waiting, links)
        below = min((tile.read.row for tile in after), default=np.inf)
        still = []
        for group in _groups(waiting, links):
            fits = _fits(group, plan, scale)
            if fits and any(place.piece.tile.read.bottom > below for place in group):
                still += group
            else:
                found.append(_finish(group, plan) if fits else _cut_off(group, plan))
        waiting = sorted(still, key=lambda place: place.number)
        links = defaultdict(set, {place.number: links[place.number] for place in waiting})
        tops = [lattice.start[1] + place.window.row * scale for place in waiting]
        yield min([below, *tops]), Objects.joined(found)


def _link(new: Sequence[_Place], others: Sequence[_Place], links: Links) -> None:
    """Note which pieces are each other's best match in each other's tile; the new ones are last."""
    if not new:
        return
    boxes = shapely.box(*np.array([_corners(place.window) for place in others]).T)
    ours, theirs = shapely.STRtree(boxes).query(boxes[len(others) - len(new) :])
    ours += len(others) - len(new)
    best: dict[tuple[int, tuple[int, int]], tuple[float, int]] = {}
    for i, j in zip(ours.tolist(), theirs.tolist(), strict=True):
        one, two = others[i], others[j]
        if one.piece.tile == two.piece.tile:
            continue
        alike = _agreement(one, two)
        if alike < JOIN_IOU:
            continue
        for key, other in (((i, two.piece.tile.index), j), ((j, one.piece.tile.index), i)):
            best[key] = max(best.get(key, (0.0, -1)), (alike, other))
    for (i, _), (_, j) in best.items():
        if best.get((j, others[i].piece.tile.index), (0.0, -1))[1] == i:
            links[others[i].number].add(others[j].number)


def _agreement(one: _Place, two: _Place) -> float:
    """IoU of two pieces where both their tiles see."""
    strip = one.read & two.read
    if strip is None:
        return 0.0
    a, b = _cut(one, strip), _cut(two, strip)
    common = one.window & two.window
    shared = common & strip if common else None
    if shared is None:
        return 0.0
    both = np.count_nonzero(_cut(one, shared) & _cut(two, shared))
    either = np.count_nonzero(a) + np.count_nonzero(b) - both
    return both / either if either else 0.0


def _cut(place: _Place, window: Window) -> Cells:
    """The pixels of a piece within a window; what is outside the piece's own is left away."""
    common = place.window & window
    return place.inside[common.slices(place.window)] if common else np.zeros((0, 0), bool)


def _groups(places: Sequence[_Place], links: Links) -> list[list[_Place]]:
    """Places that hang together by their links."""
    left = {place.number: place for place in places}
    groups: list[list[_Place]] = []
    while left:
        heap = [next(iter(left))]
        group = []
        while heap:
            place = left.pop(heap.pop(), None)
            if place is not None:
                group.append(place)
                heap += sorted(links[place.number])
        groups.append(group)
    return groups


def _fits(group: Sequence[_Place], plan: Plan, scale: float) -> bool:
    """Whether an object is of a size that the scale answers for."""
    left, top, right, bottom = _extent(group)
    return max(right - left, bottom - top) * scale <= plan.sizes_px(scale)[1]


def _finish(group: Sequence[_Place], plan: Plan) -> Objects:
    """The object of a group if it is whole, else what is left of it."""
    if all(_is_met(place, group) for place in group):
        return _outlined(group, plan, truncated=False)
    return _cut_off(group, plan)


def _cut_off(group: Sequence[_Place], plan: Plan) -> Objects:
    """Pieces that nothing completes."""
    if not plan.keeps_cut(group[0].piece.tile.scale):
        return Objects.none()
    return Objects.joined([_outlined([place], plan, truncated=True) for place in group])


def _is_met(place: _Place, group: Sequence[_Place]) -> bool:
    """Whether, at each edge that cuts a piece, others that see beyond it have the same pixels.

    That others lie beyond it is not enough: they may meet the piece elsewhere, as diagonally.
    """
    own, read = place.window, place.read
    ends = (
        (Window(own.col, own.row, 1, own.height), [p for p in group if p.read.col < read.col]),
        (Window(own.col, own.row, own.width, 1), [p for p in group if p.read.row < read.row]),
        (
            Window(own.right - 1, own.row, 1, own.height),
            [p for p in group if p.read.right > read.right],
        ),
        (
            Window(own.col, own.bottom - 1, own.width, 1),
            [p for p in group if p.read.bottom > read.bottom],
        ),
    )
    for is_cut, (edge, others) in zip(place.edges, ends, strict=True):
        if not is_cut:
            continue
        met = np.zeros(edge.shape, bool)
        for other in others:
            common = edge & other.window
            if common:
                met[common.slices(edge)] |= other.inside[common.slices(other.window)]
        contact = _cut(place, edge)
        if np.count_nonzero(met & contact) < JOIN_IOU * np.count_nonzero(contact):
            return False
    return True


def _joined(group: Sequence[_Place], window: Window) -> tuple[Floats, Cells]:
    """Logits and validity (h, w) of a group, tile px, each tile giving what it answers for."""
    logits = np.full(window.shape, UNSEEN, np.float32)
    valid = np.ones(window.shape, bool)
    for only_core in (False, True):
        for place in group:
            part = place.window & place.core if only_core else place.window
            if part is not None:
                here, there = part.slices(window), part.slices(place.window)
                logits[here] = _enlarged(place.piece)[there]
                valid[here] = place.piece.valid[there]
    return logits, valid


def _outlined(group: Sequence[_Place], plan: Plan, *, truncated: bool) -> Objects:
    """One object of the logits of a group."""
    window = Window.spanning(*_extent(group))
    logits, valid = _joined(group, window)
    largest = max(group, key=lambda place: np.count_nonzero(place.inside))
    tile, scale = largest.piece.tile, largest.piece.tile.scale
    col, row = window.col - largest.read.col, window.row - largest.read.row
    place = (tile.read.col + col * scale, tile.read.row + row * scale)
    k = group[0].piece.valid.shape[0] // group[0].piece.logits.shape[0]
    tolerance = k / 4  # a quarter of one of the model's cells, here as elsewhere
    gaps = None if valid.all() else valid
    shape = outline(plan.scene, plan.scales, logits, gaps, place, scale, scale, tolerance)
    if shape.is_empty:
        return Objects.none()
    score = min(place.piece.score for place in group)
    tier = max(place.piece.tier for place in group)
    quality = (score, stability(logits), tier)
    return Objects.of([(shape, *quality, scale, tile.index, truncated)])


def _enlarged(piece: Piece) -> Floats:
    """A piece's logits in tile px, interpolated between the cells' centres."""
    logits = piece.logits
    k = piece.valid.shape[0] // logits.shape[0]
    return logits if k == 1 else _stretched(_stretched(logits, k).T, k).T


def _stretched(rows: Floats, k: int) -> Floats:
    """(h, w) -> (h * k, w)."""
    centres = (np.arange(len(rows) * k) + 0.5) / k - 0.5
    low = np.floor(centres).astype(int)
    share = (centres - low).astype(np.float32)[:, None]
    last = len(rows) - 1
    stretched: Floats = (
        rows[low.clip(0, last)] * (1 - share) + rows[(low + 1).clip(0, last)] * share
    )
    return stretched


def _corners(window: Window) -> tuple[int, int, int, int]:
    return window.col, window.row, window.right, window.bottom


def _extent(group: Sequence[_Place]) -> tuple[int, int, int, int]:
    """(col, row, right, bottom) of all cells of a group, tile px."""
    corners = np.array([_corners(place.window) for place in group])
    col, row = corners[:, :2].min(0).tolist()
    right, bottom = corners[:, 2:].max(0).tolist()
    return col, row, right, bottom
