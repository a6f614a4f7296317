"""Figures of an evaluation, by class and by size of the objects, as a table and as JSON."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from geosam.evaluation.measures import clicks_needed, intervals, reliability
from geosam.evaluation.trials import CLICKS, TOLERANCES_PX, Evaluation, Trial

Floats = npt.NDArray[np.float64]

SIZES_PX = {"small": (0.0, 32.0), "medium": (32.0, 96.0), "large": (96.0, np.inf)}
WANTED = (0.80, 0.85)
SEED = 0

COLUMNS = {
    "iou_box": "box",
    "iou_click_1": "1 click",
    "iou_click_2": "2",
    "iou_click_3": "3",
    "iou_click_5": "5 clicks",
    "iou_best_of_three": "best of 3",
    "noc_80": "NoC80",
    "noc_80_failed": "failed",
    "noc_85": "NoC85",
    "noc_85_failed": "failed",
    "boundary_f_1px_box": "F1 box",
    "boundary_f_3px_box": "F3 box",
    "boundary_f_1px_click_1": "F1 click",
    "boundary_f_3px_click_1": "F3 click",
}


def summarize(evaluation: Evaluation) -> dict[str, Any]:
    """All figures as JSON values.

    `groups` holds the figures of all objects, of each class and of each size. A figure is a mean
    over objects with the ends of its 95 % confidence interval (bootstrap over objects). An object
    without an answer has IoU and F-score 0. `noc_80`: clicks needed for an IoU of 80 %, 5 where 5
    were not enough; `noc_80_failed`: the share of those. `calibration`, by prompt: see
    `measures.reliability`; an object without an answer has no score and does not count there.
    """
    trials = evaluation.trials
    kinds = sorted({trial.truth.kind for trial in trials})
    groups = [_group("all", "all", trials)]
    if len(kinds) > 1:
        for kind in kinds:
            groups.append(_group("class", kind, [t for t in trials if t.truth.kind == kind]))
    for size, (low, high) in SIZES_PX.items():
        own = [trial for trial in trials if low <= trial.truth.side_px < high]
        if own:
            groups.append(_group("size", size, own))
    return {
        "model": evaluation.model,
        "rasters": [str(pair.raster) for pair in evaluation.pairs],
        "objects": len(trials),
        "polygons_not_measured_or_cut": evaluation.notes,
        "sizes_px": {
            name: [low, high if np.isfinite(high) else None]
            for name, (low, high) in SIZES_PX.items()
        },
        "groups": groups,
        "calibration": {
            "box": _calibration(trials, (0,)),
            **{f"click_{n}": _calibration(trials, (n,)) for n in range(1, CLICKS + 1)},
            "all": _calibration(trials, range(CLICKS + 1)),
        },
    }


def table(summary: dict[str, Any]) -> str:
    """The figures to read: a line a group, and below it half the width of each interval."""
    names = [
        f"{group['by']}: {group['name']}" if group["by"] != "all" else "all"
        for group in summary["groups"]
    ]
    first = max(map(len, [*names, "objects of"]))
    head = f"{'objects of':{first}} {'n':>5} " + " ".join(
        f"{title:>9}" for title in COLUMNS.values()
    )
    lines = [f"{summary['model']}: mean IoU of final polygons and other measures", head]
    for name, group in zip(names, summary["groups"], strict=True):
        figures = [group["figures"][column] for column in COLUMNS]
        lines.append(
            f"{name:{first}} {group['objects']:5} " + " ".join(f"{f['mean']:9.3f}" for f in figures)
        )
        halves = ((f["high"] - f["low"]) / 2 for f in figures)
        lines.append(f"{'':{first}} {'':5} " + " ".join(f"{f'±{half:.3f}':>9}" for half in halves))
    lines.append(
        "Expected calibration error of the predicted score: "
        + ", ".join(
            f"{name.replace('_', ' ')} {part['expected_calibration_error']:.3f}"
            for name, part in summary["calibration"].items()
            if part["reliability"]
        )
    )
    notes = summary["polygons_not_measured_or_cut"]
    if notes:
        lines.append(
            "Polygons not measured, or cut at the raster's edge: "
            + ", ".join(f"{count} {note}" for note, count in notes.items())
        )
    return "\n".join(lines)


def _group(by: str, name: str, trials: Sequence[Trial]) -> dict[str, Any]:
    columns = figures_of(trials)
    values = np.column_stack(list(columns.values()))
    lows, highs = intervals(values, SEED)
    means = values.mean(axis=0)
    figures = {
        column: {"mean": float(mean), "low": float(low), "high": float(high)}
        for column, mean, low, high in zip(columns, means, lows, highs, strict=True)
    }
    return {"by": by, "name": name, "objects": len(trials), "figures": figures}


def figures_of(trials: Sequence[Trial]) -> dict[str, Floats]:
    """Each figure of each object, (N,); those of prompts that were tried."""
    columns: dict[str, Floats] = {}
    prompts = []
    if trials[0].box is not None:
        columns["iou_box"] = np.array([trial.answer(0).iou for trial in trials])
        prompts.append(0)
    if trials[0].after:
        after = np.array([[answer.iou for answer in trial.after] for trial in trials])  # (N, 5)
        columns |= {f"iou_click_{n}": after[:, n - 1] for n in range(1, CLICKS + 1)}
        columns["iou_best_of_three"] = np.array([trial.best_of_three for trial in trials])
        for wanted in WANTED:
            needed, failed = clicks_needed(after, wanted)
            name = f"noc_{wanted * 100:.0f}"
            columns |= {name: needed, f"{name}_failed": failed.astype(np.float64)}
        prompts += range(1, CLICKS + 1)
    for number in prompts:
        f_scores = np.array([trial.answer(number).boundary_f for trial in trials])  # (N, 2)
        prompt = f"click_{number}" if number else "box"
        for tolerance, values in zip(TOLERANCES_PX, f_scores.T, strict=True):
            columns[f"boundary_f_{tolerance:.0f}px_{prompt}"] = values
    return columns


def _calibration(trials: Sequence[Trial], prompts: Sequence[int]) -> dict[str, Any]:
    answers = [trial.answer(number) for trial in trials for number in prompts]
    scored = [answer for answer in answers if np.isfinite(answer.score)]
    scores = np.array([answer.score for answer in scored])
    bins, error = reliability(scores, np.array([answer.iou for answer in scored]))
    return {
        "expected_calibration_error": error if scored else None,
        "without_score": len(answers) - len(scored),
        "reliability": bins,
    }
