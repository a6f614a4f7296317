"""A contact sheet of cases: image, true outline, answer, prompt and IoU of each."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import shapely
from PIL import Image, ImageDraw, ImageFont
from shapely import MultiPolygon

from geosam.drafts import draft
from geosam.drawing import Canvas, Color, mark, rings_of, view
from geosam.evaluation.trials import Answer, Evaluation, Trial
from geosam.prompts import Prompt, PromptSet
from geosam.recipe import Stretch
from tiles import Raster

ACROSS = 6
ROWS = {"worst": 2, "middling": 1, "best": 1}
PROMPTS = {"box": 0, "1 click": 1}

_CELL, _GAP, _CAPTION, _TITLE = 256, 6, 20, 34  # px
_MARGIN = 0.35  # of an object's longer side, round it
_READ_PX = 512
_TRUE: Color = (255, 225, 40)
_ANSWER: Color = (255, 60, 200)
_PAPER: Color = (24, 26, 30)
_INK: Color = (235, 235, 235)


def draw_sheet(evaluation: Evaluation, path: str | Path) -> None:
    """Draw the worst, middling and best cases for a box and for one click into a PNG.

    True outlines are yellow, answers pink; clicks are crosses, boxes dashed. An older file is
    replaced.

    Raises:
        OutputError: the file cannot be written.
        RasterError: a raster cannot be read.
    """
    strips = [
        (f"{which}, {prompt}", cases, number)
        for prompt, number in PROMPTS.items()
        for which, cases in _cases(evaluation.trials, number).items()
    ]
    lines = [-(-len(cases) // ACROSS) for _, cases, _ in strips]
    step = _CELL + _GAP
    height = sum(_TITLE + count * (step + _CAPTION) for count in lines)
    sheet = Image.new("RGB", (ACROSS * step + _GAP, height + _GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    top = 0
    for (title, cases, number), count in zip(strips, lines, strict=True):
        words = f"{title} (true outline yellow, {evaluation.model} pink)"
        pen.text((_GAP, top + 8), words, _INK, ImageFont.load_default(18))
        top += _TITLE
        for place, trial in enumerate(cases):
            left, upper = _GAP + place % ACROSS * step, top + place // ACROSS * (step + _CAPTION)
            sheet.paste(_cell(evaluation, trial, number), (left, upper))
            pen.text(
                (left, upper + _CELL + 2), _caption(trial, trial.answer(number)), _INK,
                ImageFont.load_default(13),
            )  # fmt: skip
        top += count * (step + _CAPTION)
    with draft(path) as picture:
        sheet.save(picture, format="PNG")


def _cases(trials: Sequence[Trial], number: int) -> dict[str, list[Trial]]:
    """Which trials to show, the lowest IoU first; none twice."""
    ranked = sorted(trials, key=lambda trial: trial.answer(number).iou)
    worst = ranked[: ROWS["worst"] * ACROSS]
    rest = ranked[len(worst) :]
    best = rest[max(0, len(rest) - ROWS["best"] * ACROSS) :]
    rest = rest[: len(rest) - len(best)]
    wanted = ROWS["middling"] * ACROSS
    start = max(0, (len(rest) - wanted) // 2)
    found = {"worst": worst, "middling": rest[start : start + wanted], "best": best}
    return {which: cases for which, cases in found.items() if cases}


def _cell(evaluation: Evaluation, trial: Trial, number: int) -> Image.Image:
    truth, answer = trial.truth.shape, trial.answer(number)
    with Raster.open(evaluation.pairs[trial.truth.pair].raster) as raster:
        xmin, ymin, xmax, ymax = truth.bounds
        half = max(xmax - xmin, ymax - ymin, 8.0) / 2
        x, y = (xmin + xmax) / 2, (ymin + ymax) / 2
        square = (x - half, y - half, x + half, y + half)
        window, scale = view(raster.window, square, margin=_MARGIN, side=_READ_PX)
        stretch = Stretch.of(raster, evaluation.bands)
        chip = raster.read(window, stretch.bands, scale)
    shown = replace(chip, valid=np.ones_like(chip.valid))
    canvas = Canvas(np.ascontiguousarray(np.moveaxis(stretch(shown), 0, 2)), _CELL, unit=0.7)
    outlines = [(truth, _TRUE), (MultiPolygon(shapely.get_parts(answer.shape).tolist()), _ANSWER)]
    canvas.lines(
        (shapely.transform(ring, lambda xy: (xy - (window.col, window.row)) / scale), color)
        for shape, color in outlines
        for ring in rings_of(shape)
    )
    mark(canvas, _prompts(trial, number, raster), chip.frame)
    cell = Image.new("RGB", (_CELL, _CELL), _PAPER)
    cell.paste(canvas.picture())
    return cell


def _prompts(trial: Trial, number: int, raster: Raster) -> PromptSet:
    """What was asked, in the raster's CRS."""
    if not number:
        world = shapely.transform(trial.truth.shape, raster.frame.to_world)
        xmin, ymin, xmax, ymax = world.bounds
        return PromptSet((Prompt("1", box=(xmin, ymin, xmax, ymax)),))
    clicks = trial.clicks[:number]
    points = raster.frame.to_world([(click.x, click.y) for click in clicks])
    return PromptSet((Prompt("1", points, np.array([click.label for click in clicks])),))


def _caption(trial: Trial, answer: Answer) -> str:
    status = "" if answer.status == "ok" else f" {answer.status}"
    name = f"{trial.truth.kind} {trial.truth.row}"
    return f"IoU {answer.iou:.2f}, score {answer.score:.2f}{status}  {name}"
