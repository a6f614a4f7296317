"""Where polygons were drawn: which of them are learned from, and which ground is held out.

Neighbours look alike, so polygons that are held out at random measure memory. Here whole blocks of
the ground are: no crop that is learned from shows any of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import geopandas
import numpy as np
import numpy.typing as npt
import shapely
from shapely import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from geosam.errors import TrainingError
from geosam.placement import to_pixels
from geosam.prompts import Prompt, PromptSet
from tiles import Frame, Raster

SMALLEST_PX = 5  # longer side below which a polygon says nothing
BLOCK_SIDES = 3  # side of a block, in sides of a large polygon
BLOCKS_ACROSS = 8  # at most, along the longer side of the polygons' extent
DRAWS = 64  # divisions into blocks that are tried, to come close to the share asked for

Source: TypeAlias = str | Path
Truth: TypeAlias = str | Path | PromptSet | geopandas.GeoDataFrame
Polygons: TypeAlias = npt.NDArray[np.object_]


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A raster and the polygons on it, in its px.

    Attributes:
        raster: the raster.
        fingerprint: of the raster.
        frame: of the raster.
        block_px: side of the blocks of ground that are learned from or held out as a whole.
        learned: (N,) polygons to learn from.
        held_out: (M,) polygons to measure with.
        hidden: the ground that nothing is learned from.
        left_out: how many polygons are neither, by reason.
    """

    raster: str
    fingerprint: str
    frame: Frame
    block_px: float
    learned: Polygons
    held_out: Polygons
    hidden: BaseGeometry
    left_out: dict[str, int] = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class _Drawn:
    """A raster and all polygons on it, before any is held out."""

    raster: str
    fingerprint: str
    frame: Frame
    polygons: Polygons
    left_out: dict[str, int]
    block_px: float

    @property
    def blocks(self) -> npt.NDArray[np.int64]:
        """(N, 2) column and row of the block that each polygon's middle lies in."""
        middles = shapely.get_coordinates(shapely.point_on_surface(self.polygons))
        return np.floor(middles / self.block_px).astype(np.int64)

    def hide(self, hidden: BaseGeometry, held_out: Polygons, learned: Polygons) -> Place:
        """The place, with polygons that reach into hidden ground left out."""
        across = shapely.intersects(learned, hidden)
        left_out = self.left_out | {"reach into held-out ground": int(across.sum())}
        return Place(
            self.raster, self.fingerprint, self.frame, self.block_px, learned[~across], held_out,
            hidden, left_out,
        )  # fmt: skip


def hold_out_share(pairs: Sequence[tuple[Source, Truth]], share: float, seed: int) -> list[Place]:
    """Places of which blocks with about a share of all polygons are held out.

    Raises:
        TrainingError: there is no polygon on a raster, or all are in one block.
        PromptError, ProjectionError, RasterError: see `PromptSet.read` and `Raster.open`.
    """
    if not 0 < share < 1:
        raise TrainingError(f"Validation share: {share} (expected between 0 and 1).")
    drawn = [_draw(raster, truth) for raster, truth in pairs]
    own = np.concatenate([
        np.column_stack([np.full(len(place.polygons), i), place.blocks])
        for i, place in enumerate(drawn)
    ])  # fmt: skip  # (all polygons, 3): place and block
    blocks, of_polygon, counts = np.unique(own, axis=0, return_inverse=True, return_counts=True)
    if len(blocks) < 2:
        side = drawn[int(own[0, 0])].block_px
        raise TrainingError(
            f"Truth: all {len(own)} polygons in one block of {side:.0f} px (expected several, to "
            "hold some out by place). Draw polygons elsewhere too, or name a validation file."
        )
    held = np.isin(of_polygon.ravel(), _choose(counts, share, seed))
    places, start = [], 0
    for place in drawn:
        mine = held[start : start + len(place.polygons)]
        start += len(place.polygons)
        squares = np.unique(place.blocks[mine], axis=0) * place.block_px  # (B, 2)
        corners = np.hstack([squares, squares + place.block_px])
        hidden = shapely.union_all([shapely.box(*c) for c in corners.tolist()])
        places.append(place.hide(hidden, place.polygons[mine], place.polygons[~mine]))
    return _checked(places)


def hold_out_polygons(raster: Source, truth: Truth, val: Truth) -> list[Place]:
    """A place of which the boxes round other polygons are held out.

    Raises:
        TrainingError: there is none of either on the raster, or none to learn from off the boxes.
        PromptError, ProjectionError, RasterError: see `PromptSet.read` and `Raster.open`.
    """
    drawn, other = _draw(raster, truth), _draw(raster, val)
    hidden = shapely.union_all([shapely.box(*p.bounds) for p in other.polygons])
    return _checked([drawn.hide(hidden, other.polygons, drawn.polygons)])


def _beside(manifest: Path, name: str) -> Source:
    return name if "://" in name or name.startswith("/vsi") else manifest.parent / name


def _choose(counts: npt.NDArray[np.int64], share: float, seed: int) -> npt.NDArray[np.int64]:
    """The blocks to hold out: of some random choices that whose polygons come nearest the share."""
    rng, wanted = np.random.default_rng(seed), share * counts.sum()
    best, miss = np.array([counts.argmin()]), np.inf
    for _ in range(DRAWS):
        order = rng.permutation(len(counts))
        sums = np.cumsum(counts[order])[:-1]  # one block at least is learned from
        taken = int(np.abs(sums - wanted).argmin()) + 1
        if abs(sums[taken - 1] - wanted) < miss:
            best, miss = order[:taken], abs(sums[taken - 1] - wanted)
    return best


def _draw(raster: Source, truth: Truth) -> _Drawn:
    with Raster.open(raster) as opened:
        frame, fingerprint = opened.frame, opened.fingerprint
    if isinstance(truth, geopandas.GeoDataFrame):
        prompts = PromptSet.from_geodataframe(truth)
    else:
        prompts = truth if isinstance(truth, PromptSet) else PromptSet.read(truth)
    name = str(truth) if isinstance(truth, str | Path) else "Truth"
    placed = [to_pixels(_polygon(p, name), prompts.crs, frame) for p in prompts]
    on = [p.mask for p in placed if p is not None and p.mask is not None]
    sides = np.array([_side(polygon) for polygon in on])
    polygons = np.array([*on, None], object)[:-1][sides >= SMALLEST_PX]
    left_out = {"off the raster": len(placed) - len(on), "too small": len(on) - len(polygons)}
    if not len(polygons):
        reasons = ", ".join(f"{n} {reason}" for reason, n in left_out.items())
        raise TrainingError(
            f"{name}: no polygon to use on {raster}; {reasons} (expected polygons of at least "
            f"{SMALLEST_PX} px on the raster, which spans {frame.bounds} in {frame.crs.name}). Is "
            "it the right pair?"
        )
    sides = sides[sides >= SMALLEST_PX]
    xmin, ymin, xmax, ymax = shapely.total_bounds(polygons).tolist()
    block = max(
        BLOCK_SIDES * float(np.percentile(sides, 75)), max(xmax - xmin, ymax - ymin) / BLOCKS_ACROSS
    )
    return _Drawn(str(raster), fingerprint, frame, polygons, left_out, block)


def _polygon(prompt: Prompt, name: str) -> Prompt:
    """A record of truth as a polygon; a rectangle, which prompts take for a box, too."""
    if len(prompt.points) or (prompt.box is not None and prompt.mask is not None):
        raise TrainingError(
            f"{name}, {prompt}: {'points' if len(prompt.points) else 'two polygons'} (expected one "
            "polygon, the object). Remove the record or draw the object's outline."
        )
    if prompt.box is not None:
        return Prompt(prompt.id, mask=shapely.box(*prompt.box))
    return prompt


def _side(polygon: Polygon | MultiPolygon) -> float:
    """Longer side of the bounds, px."""
    xmin, ymin, xmax, ymax = polygon.bounds
    return float(max(xmax - xmin, ymax - ymin))


def _checked(places: list[Place]) -> list[Place]:
    for what in ("learned", "held_out"):
        if not sum(len(getattr(place, what)) for place in places):
            raise TrainingError(
                f"Truth: no polygon is left to {'learn from' if what == 'learned' else 'measure'} "
                "(expected some, on ground apart from the others). Draw polygons elsewhere too."
            )
    return places
