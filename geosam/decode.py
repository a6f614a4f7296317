"""Prompts to masks: route each to a tile and a scale, decode, place the mask on the ground."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from geosam.masks import Mask
from geosam.placement import PixelPrompt, on_tile, to_pixels
from geosam.prompts import PromptSet
from geosam.protocol import Progress
from geosam.scene import Scene
from geosam.tile_masks import TileMasks, nothing
from tiles import Tile, TileGrid

CHUNK = 64  # prompts decoded at once; bounds the memory, whatever their number
FILLS_AT_MOST = 0.45  # of the tile's side, by a prompt whose extent is known
CLICK_SCALES = (0.5, 1.0, 2.0)  # where a click, whose extent is unknown, is tried


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """A prompt on its way: the scales it is still to be tried at, and its best masks so far."""

    order: int
    prompt: PixelPrompt
    scales: tuple[float, ...]
    best: tuple[Mask, ...] = ()

    def after(self, masks: tuple[Mask, ...], coarser: float | None) -> "_Job":
        """The job when it has been decoded at its first scale, with `coarser` the next of all."""
        best = max((self.best, masks), key=_merit)
        left = self.scales[1:]
        if not left and best[0].status == "truncated" and coarser is not None:
            left = (coarser,)
        return _Job(self.order, self.prompt, left, best)


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
    several scales and the mask with the best score is kept. An object that runs off its tile is
    tried again at the next coarser scale; at the last it is marked "truncated".

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
            waiting[tried[0]].append(_Job(order, placed, tried))
    for scale, coarser in zip(scales, (*scales[1:], None), strict=True):
        groups = _by_tile(waiting.pop(scale, []), scene.store.grid(scale))
        steps.encode(scene, groups)
        for tile, jobs in groups.items():
            for job, masks in zip(jobs, _decode_tile(scene, tile, jobs, multimask), strict=True):
                onward = job.after(masks, coarser)
                if onward.scales:
                    waiting[onward.scales[0]].append(onward)
                    continue
                for mask in onward.best:
                    yield job.order, mask
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
    if not prompt.side:
        usual = tuple(scale for scale in scales if scale in CLICK_SCALES)
        return usual or (min(scales, key=lambda scale: abs(math.log(scale))),)
    wanted = prompt.side / (FILLS_AT_MOST * size)
    return (next((scale for scale in scales if scale >= wanted), scales[-1]),)


def _merit(masks: tuple[Mask, ...]) -> tuple[bool, bool, float, float]:
    """What makes one answer better than another: an object, a whole one, the score, own pixels."""
    if not masks or masks[0].logits is None:
        return False, bool(masks), 0.0, 0.0
    best = masks[0]
    return True, best.status != "truncated", best.score, -abs(math.log(best.scale))


def _by_tile(jobs: Sequence[_Job], grid: TileGrid) -> dict[Tile, list[_Job]]:
    groups: dict[Tile, list[_Job]] = defaultdict(list)
    for job in jobs:
        tile = grid.locate(job.prompt.bounds)
        if not job.prompt.is_within(tile):
            tile = grid.locate(job.prompt.anchor)  # some of the object rather than none
        groups[tile].append(job)
    return groups


def _chunks(indices: Iterable[int], jobs: Sequence[_Job]) -> Iterator[tuple[list[int], bool]]:
    """A bounded number of jobs at once, and whether they are lone clicks, which are ambiguous."""
    chosen = list(indices)
    for clicks in (True, False):
        group = [i for i in chosen if jobs[i].prompt.is_click is clicks]
        for start in range(0, len(group), CHUNK):
            yield group[start : start + CHUNK], clicks


def _decode_tile(
    scene: Scene, tile: Tile, jobs: Sequence[_Job], multimask: bool
) -> list[tuple[Mask, ...]]:
    """The masks of each job, best first; one unless several were asked for."""
    results: list[tuple[Mask, ...]] = [
        (nothing(job.prompt.id, "empty", scene.frame, tile),) for job in jobs
    ]
    if scene.store.status(tile) == "empty":
        return results
    model, features = scene.model, scene.store[tile]
    maker = TileMasks.on(tile, scene)
    prompts = {
        i: on_tile(job.prompt, tile, model.size, model.logits_size)
        for i, job in enumerate(jobs)
        if not job.prompt.is_click or maker.has_data_at(job.prompt)
    }
    for chosen, clicks in _chunks(prompts, jobs):
        logits, scores = model.decode(features, [prompts[i] for i in chosen], multimask=clicks)
        for i, own_logits, own_scores in zip(chosen, logits, scores, strict=True):
            ranks = np.argsort(-own_scores, kind="stable")[: None if multimask else 1]
            results[i] = tuple(
                maker.mask(jobs[i].prompt, own_logits[k], float(own_scores[k]), candidate)
                for candidate, k in enumerate(ranks)
            )
    return results
