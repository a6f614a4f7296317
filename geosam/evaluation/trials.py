"""Tries a model on true outlines: in rounds over all objects of a raster, through `segment`."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

import geopandas
import numpy as np
import shapely
from shapely import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from geosam.errors import LabelError
from geosam.evaluation.clicks import Click, next_click
from geosam.evaluation.measures import boundary_f, iou
from geosam.evaluation.truth import Pair, Truth, read_manifest, read_truth
from geosam.prompts import Prompt, PromptSet
from geosam.protocol import Model, Progress
from geosam.verbs import segment
from tiles import Frame, Raster

CLICKS = 5
TOLERANCES_PX = (1.0, 3.0)  # of an outline
NOTHING: BaseGeometry = Polygon()

Segment: TypeAlias = Callable[[PromptSet, bool], geopandas.GeoDataFrame]
"""Prompts, and whether single clicks want three rows -> polygons as `geosam.segment` gives them."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What came of one prompt.

    Attributes:
        shape: the outline, px of the raster; empty where there is none.
        status: see `segment`.
        score: the IoU that the model predicted; NaN where there is no outline.
        iou: with the truth.
        boundary_f: (2,) F-score of the outline at `TOLERANCES_PX`.
    """

    shape: BaseGeometry
    status: str
    score: float
    iou: float
    boundary_f: tuple[float, ...]


@dataclass(slots=True, eq=False)
class Trial:
    """All that was tried on one object.

    Attributes:
        truth: the object.
        box: answer to its exact box.
        clicks: the clicks, each placed by what was wrong after those before it; 0 to 5.
        after: answers after 1 to 5 clicks; where nothing was wrong any more, the last answer again.
        best_of_three: the best IoU among the three candidates for the first click.
    """

    truth: Truth
    box: Answer | None = None
    clicks: tuple[Click, ...] = ()
    after: list[Answer] = field(default_factory=list)
    best_of_three: float = 0.0

    def answer(self, clicks: int) -> Answer:
        """The answer after some clicks; 0 stands for the box."""
        answer = self.after[clicks - 1] if clicks else self.box
        if answer is None:
            raise ValueError(f"Trial of row {self.truth.row}: the box was not tried yet.")
        return answer


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """How a model did on true outlines.

    Attributes:
        model: its id.
        pairs: rasters and their true outlines.
        trials: one an object.
        notes: how many polygons were left aside or cut, by reason, see `read_truth`; and how many
            were not drawn where there was a limit.
        bands: that were looked at; None: the default.
    """

    model: str
    pairs: tuple[Pair, ...]
    trials: tuple[Trial, ...]
    notes: dict[str, int]
    bands: tuple[int, ...] | None = None


def evaluate(
    model: Model,
    pairs: Pair | Sequence[Pair] | str | Path,
    *,
    class_column: str | None = None,
    bands: Sequence[int] | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a model on true outlines, with prompts simulated from them.

    Every object is prompted with its exact box, and with 1 to 5 clicks, the first at its pole of
    inaccessibility and each next one deepest in what is still wrong (see `evaluation.clicks`). All
    goes through `segment`, and the final polygons are compared with the true ones as polygons.

    Args:
        model: see `load_model`.
        pairs: a raster with its true outlines, several, or a manifest (see `read_manifest`).
        class_column: which column of the outlines holds their class.
        bands: see `segment`.
        limit: at most so many objects of each class, drawn at random but always the same.
        progress: called with (done, total) prompts.

    Raises:
        LabelError: the outlines cannot be used, or none of them can be measured on.
        RasterError, StoreMismatch, BandError: see `segment`.
    """
    if isinstance(pairs, Pair):
        pairs = [pairs]
    elif isinstance(pairs, str | Path):
        pairs = read_manifest(pairs)
    truths: list[Truth] = []
    notes: Counter[str] = Counter()
    for position, pair in enumerate(pairs):
        found, own_notes = read_truth(pair, position, class_column=class_column, bands=bands)
        truths += found
        notes += own_notes
    if not truths:
        reasons = ", ".join(f"{count} {reason}" for reason, count in notes.items())
        raise LabelError(
            f"True outlines: none to measure on ({reasons or 'no rows'}; expected polygons on the "
            "raster). Check that they belong to it, and their CRS."
        )
    if limit is not None:
        drawn = draw_by_class(truths, limit)
        notes["not drawn"] = len(truths) - len(drawn)
        truths = drawn
    trials: list[Trial] = []
    steps = _Steps(len(truths) * (CLICKS + 1), progress)
    for position, pair in enumerate(pairs):
        own = [truth for truth in truths if truth.pair == position]
        if own:
            with Raster.open(pair.raster) as raster:
                frame = raster.frame
            ask = partial(_segment, model, pair.raster, bands)
            new = [Trial(truth) for truth in own]
            try_boxes(new, frame, ask)
            steps.advance(len(new))
            try_clicks(new, frame, ask, steps.advance)
            trials += new
    return Evaluation(
        model.id, tuple(pairs), tuple(trials), dict(+notes), tuple(bands) if bands else None
    )


def draw_by_class(truths: Sequence[Truth], limit: int) -> list[Truth]:
    """At most `limit` objects of each class, in their order; the draw is always the same."""
    groups: dict[str, list[int]] = defaultdict(list)
    for position, truth in enumerate(truths):
        groups[truth.kind].append(position)
    kept: list[int] = []
    for group in groups.values():
        kept += np.random.default_rng(0).permutation(group)[:limit].tolist()
    return [truths[position] for position in sorted(kept)]


def try_boxes(trials: Sequence[Trial], frame: Frame, ask: Segment) -> None:
    """Prompt each object of one raster with its exact box.

    Args:
        trials: of the objects; the answers are put there.
        frame: of the raster.
        ask: what is tried.
    """
    prompts = [
        Prompt(str(i), box=_world_box(trial.truth.shape, frame)) for i, trial in enumerate(trials)
    ]
    found = _ask(ask, prompts, frame, multimask=False)
    for i, trial in enumerate(trials):
        trial.box = _answer(trial.truth, found[str(i)][0])


def try_clicks(
    trials: Sequence[Trial],
    frame: Frame,
    ask: Segment,
    advance: Callable[[int], None] = lambda _count: None,
) -> None:
    """Prompt each object of one raster with 1 to 5 clicks, a round for all of them at a time.

    Args:
        trials: of the objects; clicks and answers are put there.
        frame: of the raster.
        ask: what is tried.
        advance: called with the number of prompts that are done with.
    """
    for number in range(CLICKS):
        going: dict[str, Trial] = {}
        for i, trial in enumerate(trials):
            last = trial.after[-1].shape if number else NOTHING
            click = next_click(trial.truth.shape, last, trial.clicks)
            if click is None:
                trial.after.append(trial.after[-1])
            else:
                trial.clicks += (click,)
                going[str(i)] = trial
        prompts = [_prompt(name, trial.clicks, frame) for name, trial in going.items()]
        found = _ask(ask, prompts, frame, multimask=not number) if prompts else {}
        for name, trial in going.items():
            candidates = found[name]
            trial.after.append(_answer(trial.truth, candidates[0]))
            if not number:
                ious = [iou(shape, trial.truth.shape) for shape, _, _ in candidates]
                trial.best_of_three = max(ious)
        advance(len(trials))


_Found: TypeAlias = tuple[BaseGeometry, str, float]


def _segment(
    model: Model,
    raster: str | Path,
    bands: Sequence[int] | None,
    prompts: PromptSet,
    multimask: bool,
) -> geopandas.GeoDataFrame:
    return segment(model, raster, prompts, bands=bands, multimask=multimask)


def _ask(
    ask: Segment, prompts: Sequence[Prompt], frame: Frame, *, multimask: bool
) -> dict[str, list[_Found]]:
    """Outlines in px of the raster with status and score, by prompt, the best candidate first."""
    rows = ask(PromptSet(tuple(prompts)), multimask)
    found: dict[str, list[_Found]] = defaultdict(list)
    columns = (rows["id"], rows.geometry, rows["status"], rows["score"])
    for name, geometry, status, score in zip(*columns, strict=True):
        found[name].append((_in_pixels(geometry, frame), status, float(score)))
    return found


def _in_pixels(geometry: Polygon | MultiPolygon | None, frame: Frame) -> BaseGeometry:
    if geometry is None or geometry.is_empty:
        return NOTHING
    shape = shapely.transform(geometry, frame.to_pixel)
    return shape if shape.is_valid else shapely.make_valid(shape)


def _answer(truth: Truth, found: _Found) -> Answer:
    shape, status, score = found
    f_scores = boundary_f(shape, truth.shape, TOLERANCES_PX)
    return Answer(shape, status, score, iou(shape, truth.shape), tuple(f_scores.tolist()))


def _world_box(shape: BaseGeometry, frame: Frame) -> tuple[float, float, float, float]:
    xmin, ymin, xmax, ymax = shapely.transform(shape, frame.to_world).bounds
    return xmin, ymin, xmax, ymax


def _prompt(name: str, clicks: tuple[Click, ...], frame: Frame) -> Prompt:
    points = frame.to_world([(click.x, click.y) for click in clicks])
    return Prompt(name, points, np.array([click.label for click in clicks]))


class _Steps:
    def __init__(self, total: int, progress: Progress | None) -> None:
        self.done, self.total, self.progress = 0, total, progress

    def advance(self, count: int) -> None:
        self.done += count
        if self.progress:
            self.progress(self.done, self.total)
