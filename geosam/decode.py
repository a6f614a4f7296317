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
from geosam.protocol import Floats, Progress
from geosam.refining import refine
from geosam.scene import Scene
from geosam.tile_masks import TileMasks, nothing
from geosam.workers import share, spread
from tiles import Tile, TileGrid

CHUNK = 64  # prompts decoded at once; bounds the memory, whatever their number
FILLS_AT_MOST = 0.45  # of the tile's side, by a prompt whose extent is known
CLICK_SCALES = (0.5, 1.0, 2.0)  # where a click, whose extent is unknown, is tried
SMALL_PX = 24.0  # side of a square as large as the object below which a finer scale is tried too


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """A prompt on its way: the scales it is still to be tried at, and its best answer so far.

    The finer scale is for clicks whose object turns out to be small.

    Of several clicks the first on the object is the guide: the scale at which it alone is answered
    best is theirs, and they are given its mask to correct.
    """

    order: int
    prompt: PixelPrompt
    scales: tuple[float, ...]
    finer: float | None = None
    guide: PixelPrompt | None = None
    best: "_Answer | None" = None

    def after(self, answer: "_Answer", coarser: float | None) -> "_Job":
        """The job when it has been decoded at its first scale, with `coarser` the next of all."""
        best = answer if self.best is None else max(self.best, answer, key=_Answer.merit)
        left, finer = self.scales[1:], self.finer
        if not left and best.masks[0].status == "truncated":
            left = () if coarser is None else (coarser,)
        elif not left and finer is not None and 0 < best.side_px < SMALL_PX:
            left, finer = (finer,), None
        return _Job(self.order, self.prompt, left, finer, self.guide, best)


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
    waiting: dict[float, list[_Job]] = defaultdict(list)
    for order, prompt in enumerate(prompts):
        placed = to_pixels(prompt, prompts.crs, scene.frame)
        if placed is None:
            yield order, nothing(prompt.id, "outside", scene.frame)
            steps.advance()
        else:
            tried = _scales_to_try(placed, scales, scene.model.size)
            guide = placed.first_click if len(tried) > 1 and not placed.is_click else None
            finer = _finer(placed, tried, scales, scene.model.size)
            waiting[tried[0]].append(_Job(order, placed, tried, finer, guide))
    coarser_than = dict(itertools.pairwise(scales))
    while waiting:
        scale = min(waiting)
        coarser = coarser_than.get(scale)
        groups = _by_tile(waiting.pop(scale), scene.store.grid(scale))
        steps.encode(scene, groups)
        for jobs, answers in zip(
            groups.values(), _decode_all(scene, groups, multimask), strict=True
        ):
            for job, answer in zip(jobs, answers, strict=True):
                onward = job.after(answer, coarser)
                if onward.scales:
                    waiting[onward.scales[0]].append(onward)
                    continue
                for mask in onward.best.masks if onward.best else ():
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
        missing = [tile for tile in tiles if scene.store.status(tile) == "missing"]
        self.total += len(missing)
        scene.ensure(missing, lambda _done, _total: self.advance())


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


def _by_tile(jobs: Sequence[_Job], grid: TileGrid) -> dict[Tile, list[_Job]]:
    groups: dict[Tile, list[_Job]] = defaultdict(list)
    for job in jobs:
        tile = grid.locate(job.prompt.bounds)
        if not job.prompt.is_within(tile):
            tile = grid.locate(job.prompt.anchor)  # some of the object rather than none
        groups[tile].append(job)
    return groups


def _decode_all(
    scene: Scene, groups: Mapping[Tile, Sequence[_Job]], multimask: bool
) -> Iterator[list[_Answer]]:
    """The answers to the jobs of each tile, in order; earlier answers need not travel."""
    size = share(len(groups), scene.client)
    asked = iter(groups.items())
    pieces = (
        [(tile, [replace(job, best=None) for job in jobs]) for tile, jobs in islice(asked, size)]
        for _ in range(0, len(groups), size)
    )
    return spread(partial(_decode_tiles, multimask=multimask), scene, pieces, scene.client)


def _decode_tiles(
    scene: Scene, groups: Sequence[tuple[Tile, Sequence[_Job]]], *, multimask: bool
) -> Iterator[list[_Answer]]:
    for tile, jobs in groups:
        yield _decode_tile(scene, tile, jobs, multimask)


def _decode_tile(scene: Scene, tile: Tile, jobs: Sequence[_Job], multimask: bool) -> list[_Answer]:
    """The answer to each job, of one mask unless several were asked for."""
    found = [
        _Answer((nothing(job.prompt.id, "empty", scene.frame, tile),), 0.0, 0.0) for job in jobs
    ]
    if scene.store.status(tile) == "empty":
        return found
    decoder = _TileDecoder(scene, tile)
    guides = {i: job.guide for i, job in enumerate(jobs) if job.guide}
    clicks = {
        i: job.prompt
        for i, job in enumerate(jobs)
        if job.prompt.is_click and decoder.maker.has_data_at(job.prompt)
    }
    others = {i: job.prompt for i, job in enumerate(jobs) if not job.prompt.is_click}
    rough, scores = {}, {}
    for i, logits, own_scores in decoder.decode(guides, multimask=True):
        best = int(own_scores.argmax())
        rough[i], scores[i] = logits[best], float(own_scores[best])
    answers = itertools.chain(
        decoder.decode(clicks, multimask=True), decoder.decode(others, rough, multimask=False)
    )
    for i, logits, own_scores in answers:
        ranks = np.argsort(-own_scores, kind="stable")[: None if multimask else 1]
        masks = tuple(
            decoder.maker.mask(jobs[i].prompt, logits[k], float(own_scores[k]), candidate)
            for candidate, k in enumerate(ranks)
        )
        cells = 0 if masks[0].logits is None else np.count_nonzero(masks[0].logits > 0)
        side_px = math.sqrt(cells) * tile.scale * scene.model.size / scene.model.logits_size
        found[i] = _Answer(masks, scores.get(i, masks[0].score), side_px)
    return found


class _TileDecoder:
    """Decodes prompts on a tile, a bounded number of them at once."""

    def __init__(self, scene: Scene, tile: Tile) -> None:
        self.model, self.tile = scene.model, tile
        self.features = scene.store[tile]
        self.maker = TileMasks.on(tile, scene)

    def decode(
        self,
        prompts: Mapping[int, PixelPrompt],
        rough: Mapping[int, Floats] | None = None,
        *,
        multimask: bool,
    ) -> Iterator[tuple[int, Floats, Floats]]:
        """Logits (M, s, s) and scores (M,) of each prompt, with its key.

        Args:
            prompts: by any keys.
            rough: logits (s, s) that some of the prompts correct, by the same keys.
            multimask: three masks each, else one.
        """
        model = self.model
        keys = list(prompts)
        for start in range(0, len(keys), CHUNK):
            chosen = keys[start : start + CHUNK]
            asked = [
                on_tile(prompts[key], self.tile, model.size, model.logits_size) for key in chosen
            ]
            if rough:
                asked = [
                    replace(prompt, mask=rough.get(key, prompt.mask))
                    for key, prompt in zip(chosen, asked, strict=True)
                ]
            yield from zip(
                chosen, *model.decode(self.features, asked, multimask=multimask), strict=True
            )
