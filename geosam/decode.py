"""Prompts to masks: route each to a tile and a scale, decode, place the mask on the ground."""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import numpy as np

from geosam.masks import Mask
from geosam.placement import PixelPrompt, on_tile, to_pixels
from geosam.prompts import PromptSet
from geosam.protocol import TILES_AT_ONCE, Features, Floats, Model, Progress
from geosam.refining import refine
from geosam.scene import Scene
from geosam.tile_masks import TileMasks, nothing
from geosam.workers import share, spread
from tiles import Tile

CHUNK = 64  # prompts decoded at once; bounds the memory, whatever their number
FILLS_AT_MOST = 0.45  # of the tile's side, by a prompt whose extent is known
CLICK_SCALES = (0.5, 1.0, 2.0)  # where a click, whose extent is unknown, is tried
SMALL_PX = 24.0  # side of a square as large as the object below which a finer scale is tried too


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """A prompt on its way, and the scales that it is tried at now, finest first.

    The finer scale is for clicks whose object turns out to be small.

    Of several clicks the first on the object is the guide: the scale at which it alone is answered
    best is theirs, and they are given its mask to correct.
    """

    order: int
    prompt: PixelPrompt
    scales: tuple[float, ...]
    finer: float | None = None
    guide: PixelPrompt | None = None

    def after(self, best: "_Answer", coarser: float | None) -> "_Job | None":
        """What is still to be tried, with `coarser` the next of all scales; None: no more."""
        if best.masks[0].status == "truncated":
            return None if coarser is None else replace(self, scales=(coarser,))
        if self.finer is not None and 0 < best.side_px < SMALL_PX:
            return replace(self, scales=(self.finer,), finer=None)
        return None


@dataclass(frozen=True, slots=True, eq=False)
class _Answer:
    """A prompt's masks at one scale, best first, and the score by which scales are compared.

    The side is that of a square as large as the best mask, in raster px; 0 if there is none.
    """

    masks: tuple[Mask, ...]
    score: float
    side_px: float

    def merit(self) -> tuple[bool, bool, float, float]:
        """What makes one better than another: an object, a whole one, the score, own pixels."""
        best = self.masks[0]
        if best.logits is None:
            return False, True, 0.0, 0.0
        return True, best.status != "truncated", self.score, -abs(math.log(best.scale))


def decode(
    scene: Scene,
    prompts: PromptSet,
    *,
    scales: Sequence[float],
    multimask: bool = False,
    progress: Progress | None = None,
) -> Iterator[tuple[int, Mask]]:
    """Masks of prompts, as they are finished, each with its prompt's place in the order.

    A prompt goes to the tile that gives it most context, at the finest scale at which its extent
    takes less than half of the tile's side. A lone click, whose extent is unknown, is tried at
    several scales, and if its object is small at a finer one; the mask with the best score is kept.
    Further clicks correct that mask. An object that runs off its tile is tried again at the next
    coarser scale; at the last it is marked "truncated". The outline of an object that was found at
    a coarse scale is drawn again at a finer one.

    Args:
        scene: raster and features; tiles that are missing are encoded.
        prompts: in their CRS, or the raster's if they name none.
        scales: that may be used, ascending.
        multimask: three masks for a single click, best first, instead of the best.
        progress: called with (done, total) steps, a step being a prompt or a tile to encode.

    Raises:
        ProjectionError: a prompt has no place in the raster's CRS.
        StoreIncomplete, RasterError: a tile is missing and cannot be encoded.
    """
    steps = _Steps(len(prompts), progress)
    waiting: list[_Job] = []
    for order, prompt in enumerate(prompts):
        placed = to_pixels(prompt, prompts.crs, scene.frame)
        if placed is None:
            yield order, nothing(prompt.id, "outside", scene.frame)
            steps.advance()
        else:
            tried = _scales_to_try(placed, scales, scene.model.size)
            guide = placed.first_click if len(tried) > 1 and not placed.is_click else None
            finer = _finer(placed, tried, scales, scene.model.size)
            waiting.append(_Job(order, placed, tried, finer, guide))
    coarser_than = dict(itertools.pairwise(scales))
    best: dict[int, _Answer] = {}
    while waiting:
        groups = _by_tile(waiting, scene)
        steps.encode(scene, groups)
        found = _decode_all(scene, groups, multimask)
        if not scene.keeps:
            found = steps.counted(found, len(groups))
        waiting = []
        for (tile, jobs), answers in zip(groups.items(), found, strict=True):
            for job, answer in zip(jobs, answers, strict=True):
                known = best.get(job.order, answer)
                best[job.order] = max(known, answer, key=_Answer.merit)
                if tile.scale < job.scales[-1]:
                    continue
                onward = job.after(best[job.order], coarser_than.get(tile.scale))
                if onward:
                    waiting.append(onward)
                    continue
                for mask in best.pop(job.order).masks:
                    yield job.order, refine(scene, mask, scales, partial(steps.encode, scene))
                steps.advance()


class _Steps:
    """Progress over prompts and over the tiles that turn out to be needed."""

    def __init__(self, prompts: int, progress: Progress | None) -> None:
        self.done, self.total, self.progress = 0, prompts, progress

    def advance(self) -> None:
        self.done += 1
        if self.progress:
            self.progress(self.done, self.total)

    def encode(self, scene: Scene, tiles: Iterable[Tile]) -> None:
        missing = scene.missing(tiles)
        self.total += len(missing)
        scene.ensure(missing, lambda _done, _total: self.advance())

    def counted(self, answers: Iterator[list[_Answer]], tiles: int) -> Iterator[list[_Answer]]:
        """The answers of so many tiles, each of which was encoded for them."""
        self.total += tiles
        for own in answers:
            self.advance()
            yield own


def _scales_to_try(prompt: PixelPrompt, scales: Sequence[float], size: int) -> tuple[float, ...]:
    """Scales for a prompt: one if its extent is known, else all usual ones that hold its clicks."""
    wanted = prompt.side / (FILLS_AT_MOST * size)
    if prompt.is_clicks:
        usual = tuple(scale for scale in scales if scale in CLICK_SCALES and scale >= wanted)
        if usual:
            return usual
        if not prompt.side:
            return (min(scales, key=lambda scale: abs(math.log(scale))),)
    return (next((scale for scale in scales if scale >= wanted), scales[-1]),)


def _finer(
    prompt: PixelPrompt, tried: Sequence[float], scales: Sequence[float], size: int
) -> float | None:
    """The next scale below those that clicks are tried at, if it holds them."""
    if not (prompt.is_clicks and tried[0] in CLICK_SCALES):
        return None
    finer = max((scale for scale in scales if scale < tried[0]), default=None)
    holds = finer is not None and prompt.side <= finer * FILLS_AT_MOST * size
    return finer if holds else None


def _by_tile(jobs: Sequence[_Job], scene: Scene) -> dict[Tile, list[_Job]]:
    """The tiles that jobs are to be decoded in, finest first."""
    groups: dict[Tile, list[_Job]] = defaultdict(list)
    for scale in sorted({scale for job in jobs for scale in job.scales}):
        for job in jobs:
            if scale in job.scales:
                tile = scene.locate(scale, job.prompt.bounds)
                if not job.prompt.is_within(tile):
                    tile = scene.locate(scale, job.prompt.anchor)  # some of it rather than none
                groups[tile].append(job)
    return groups


def _decode_all(
    scene: Scene, groups: Mapping[Tile, Sequence[_Job]], multimask: bool
) -> Iterator[list[_Answer]]:
    """The answers to the jobs of each tile, in order."""
    size = share(len(groups), scene.client)
    size += -size % TILES_AT_ONCE  # the same tiles together wherever they are decoded: no rounding
    asked = iter(groups.items())
    pieces = (list(islice(asked, size)) for _ in range(0, len(groups), size))
    return spread(partial(_decode_tiles, multimask=multimask), scene, pieces, scene.client)


def _decode_tiles(
    scene: Scene, groups: Sequence[tuple[Tile, Sequence[_Job]]], *, multimask: bool
) -> Iterator[list[_Answer]]:
    for start in range(0, len(groups), TILES_AT_ONCE):
        some = groups[start : start + TILES_AT_ONCE]
        answers = iter(_decode_some(scene, some, multimask))
        yield from (list(islice(answers, len(jobs))) for _, jobs in some)


def _decode_some(
    scene: Scene, groups: Sequence[tuple[Tile, Sequence[_Job]]], multimask: bool
) -> list[_Answer]:
    """The answers to the jobs of a few tiles, of one mask unless several were asked for."""
    asked = [(tile, job) for tile, jobs in groups for job in jobs]
    found = [
        _Answer((nothing(job.prompt.id, "empty", scene.frame, tile),), 0.0, 0.0)
        for tile, job in asked
    ]
    features, makers = {}, {}
    for (tile, _), encoded in zip(groups, scene.encoded(tile for tile, _ in groups), strict=True):
        if encoded.features is not None:
            features[tile], makers[tile] = encoded.features, TileMasks.on(tile, encoded, scene)
    guides, clicks, others = {}, {}, {}
    for i, (tile, job) in enumerate(asked):
        if tile not in makers:
            continue
        if job.guide:
            guides[i] = tile, job.guide
        if not job.prompt.is_click:
            others[i] = tile, job.prompt
        elif makers[tile].has_data_at(job.prompt):
            clicks[i] = tile, job.prompt
    decoder = _Decoder(scene.model, features)
    rough, scores = {}, {}
    for i, logits, own_scores in decoder.decode(guides, multimask=True):
        best = int(own_scores.argmax())
        rough[i], scores[i] = logits[best], float(own_scores[best])
    answers = itertools.chain(
        decoder.decode(clicks, multimask=True), decoder.decode(others, rough, multimask=False)
    )
    for i, logits, own_scores in answers:
        tile, job = asked[i]
        ranks = np.argsort(-own_scores, kind="stable")[: None if multimask else 1]
        masks = tuple(
            makers[tile].mask(job.prompt, logits[k], float(own_scores[k]), candidate)
            for candidate, k in enumerate(ranks)
        )
        cells = 0 if masks[0].logits is None else np.count_nonzero(masks[0].logits > 0)
        side_px = math.sqrt(cells) * tile.scale * scene.model.size / scene.model.logits_size
        found[i] = _Answer(masks, scores.get(i, masks[0].score), side_px)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Decoder:
    """Decodes prompts on a few tiles, whose features it has, a bounded number of them at once."""

    model: Model
    features: Mapping[Tile, Features]

    def decode(
        self,
        prompts: Mapping[int, tuple[Tile, PixelPrompt]],
        rough: Mapping[int, Floats] | None = None,
        *,
        multimask: bool,
    ) -> Iterator[tuple[int, Floats, Floats]]:
        """Logits (M, s, s) and scores (M,) of each prompt, with its key.

        Args:
            prompts: by any keys, each with its tile.
            rough: logits (s, s) that some of the prompts correct, by the same keys.
            multimask: three masks each, else one.
        """
        model = self.model
        keys = list(prompts)
        for start in range(0, len(keys), CHUNK):
            chosen = keys[start : start + CHUNK]
            features, asked = [], []
            for key in chosen:
                tile, prompt = prompts[key]
                features.append(self.features[tile])
                placed = on_tile(prompt, tile, model.size, model.logits_size)
                asked.append(replace(placed, mask=(rough or {}).get(key, placed.mask)))
            yield from zip(chosen, *model.decode(features, asked, multimask=multimask), strict=True)
