"""Does a result depend on the raster's extent, or on where tiles start?

    python benchmarks/extent.py DATA [--model nano] [--most 40] [--context 250] [--step 1]
        [--centred]
    python benchmarks/extent.py DATA --everything [--classes fields] [--centred]

DATA is laid out as for `accuracy.py`. Each object is prompted with its box and with a click: in the
whole scene; in a clip with about so many px of context, whose corner lies anywhere; and in the same
scene moved on the ground by a random number of whole px, a multiple of `--step`, so that its tiles
start elsewhere in it.
IoU of the polygons with those of the scene, and the share of prompts answered in both or in none;
beside them the mean IoU of the scene's with the truth, and milliseconds a prompt when all of an
image are asked at once, on tiles that are encoded unless they are `--centred`, round each prompt.

With `--everything` nothing is prompted: every object of the scene is looked for again in the scene
moved, and in a clip of its left three fifths, there only if it has the context. Each is compared
with the one that meets it best; `alike` is then how many are found there to one in the scene. The
rows named `sure` are of objects with a score of 0.8 and more.
"""

import argparse
import itertools
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas
import rasterio
import shapely
from accuracy import pairs_of
from affine import Affine

import geosam
from geosam.evaluation.clicks import next_click
from geosam.evaluation.truth import read_truth
from tiles import Raster, Window

UNEVEN = (3, -3, 1, 9)  # px more than the context asked for: left, top, right, bottom
SURE = 0.8  # score
FARTHEST = 1000  # px by which a scene is moved, at most


def write_clip(path: Path, raster: Raster, window: Window, moved: tuple[int, int] = (0, 0)) -> None:
    """Write a part of a raster, all of it moved on the ground by whole px (right, down)."""
    chip = raster.read(window, (1, 2, 3))
    profile = {
        "driver": "GTiff", "count": 3, "height": window.height, "width": window.width,
        "dtype": "uint8", "crs": chip.frame.crs.to_wkt(),
        "transform": chip.frame.transform @ Affine.translation(*moved),
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        file.write(chip.data)


def prompts_of(shape, raster: Raster) -> dict[str, geosam.PromptSet]:
    click = next_click(shape, shapely.Polygon())
    box = shapely.transform(shape, raster.frame.to_world).bounds
    return {
        "box": geosam.PromptSet.of(boxes=[box]),
        "click": geosam.PromptSet.of(points=raster.frame.to_world([(click.x, click.y)])),
    }


def outline(model, path: Path, shape, centred: bool) -> dict[str, shapely.Geometry | None]:
    """What box and click of an object (raster px) give, in px of the raster."""
    found = {}
    with Raster.open(path) as raster:
        for name, prompts in prompts_of(shape, raster).items():
            polygon = geosam.segment(model, path, prompts, centred=centred).geometry[0]
            found[name] = polygon and shapely.transform(polygon, raster.frame.to_pixel)
    return found


def agreement(one, two) -> float:
    if one is None or two is None:
        return float(one is two)
    return one.intersection(two).area / one.union(two).area


def milliseconds(model, path: Path, shapes, centred: bool) -> dict[str, float]:
    """That a prompt takes if all are asked at once, for boxes and for clicks."""
    found = {}
    with Raster.open(path) as raster:
        boxes = [shapely.transform(shape, raster.frame.to_world).bounds for shape in shapes]
        middles = [next_click(shape, shapely.Polygon()) for shape in shapes]
        points = raster.frame.to_world([(click.x, click.y) for click in middles])
    asked = {"box": geosam.PromptSet.of(boxes=boxes), "click": geosam.PromptSet.of(points=points)}
    for name, prompts in asked.items():
        for _ in range(2):  # the second time all tiles are there
            began = time.perf_counter()
            geosam.segment(model, path, prompts, centred=centred)
            found[name] = (time.perf_counter() - began) / len(shapes) * 1e3
    return found


def compare(
    model, path: Path, shapes, folder: Path, arguments: argparse.Namespace, rng
) -> list[tuple]:
    """(prompt, clip or moved, IoU, if both or none are there, with truth, ms) of each object."""
    rows = []
    context, step, centred = arguments.context, arguments.step, arguments.centred
    moved = folder / f"{path.stem}-moved.tif"
    with Raster.open(path) as raster:
        shift = (rng.integers(-FARTHEST, FARTHEST + 1, 2) // step * step).tolist()
        write_clip(moved, raster, raster.window, (shift[0], shift[1]))
        for number, shape in enumerate(shapes):
            edges = np.rint(shape.bounds).astype(int) + np.add(context, UNEVEN) * (-1, -1, 1, 1)
            window = raster.window & Window.spanning(*edges.tolist())
            clip = folder / f"{path.stem}-{number}.tif"
            write_clip(clip, raster, window)
            inside = shapely.transform(shape, lambda xy, w=window: xy - (w.col, w.row))
            whole = outline(model, path, shape, centred)
            for name, polygon in outline(model, clip, inside, centred).items():
                there = polygon and shapely.transform(
                    polygon, lambda xy, w=window: np.add(xy, (w.col, w.row))
                )
                rows.append((name, "clip", whole[name], there, shape))
            rows += [
                (name, "moved", whole[name], polygon, shape)
                for name, polygon in outline(model, moved, shape, centred).items()
            ]
    cost = milliseconds(model, path, shapes, centred)
    return [
        (name, way, agreement(one, two), (one is None) == (two is None), agreement(one, truth),
         cost[name])
        for name, way, one, two, truth in rows
    ]  # fmt: skip


def objects_of(model, path: Path, centred: bool) -> tuple[np.ndarray, np.ndarray]:
    """The outlines of all objects, in px of the raster, and their scores."""
    with Raster.open(path) as raster:
        found = pandas.concat(geosam.everything(model, path, centred=centred))
        outlines = shapely.transform(found.geometry.to_numpy(), raster.frame.to_pixel)
        return outlines, found["score"].to_numpy()


def compare_all(model, path: Path, folder: Path, arguments: argparse.Namespace, rng) -> list[tuple]:
    """(all or sure, clip or moved, IoU of each with its like, objects there, objects here)."""
    context, step, centred = arguments.context, arguments.step, arguments.centred
    moved, clip = (folder / f"{path.stem}-{way}.tif" for way in ("moved", "clip"))
    with Raster.open(path) as raster:
        shift = (rng.integers(-FARTHEST, FARTHEST + 1, 2) // step * step).tolist()
        write_clip(moved, raster, raster.window, (shift[0], shift[1]))
        left = replace(raster.window, width=raster.window.width * 3 // 5)
        write_clip(clip, raster, left)
    whole = objects_of(model, path, centred)
    rows = []
    for way, other, last in (("clip", clip, left.width - context), ("moved", moved, np.inf)):
        (scene, scores), (there, there_scores) = (
            (outlines[fits], scores[fits])
            for outlines, scores in (whole, objects_of(model, other, centred))
            for fits in [shapely.bounds(outlines)[:, 2] <= last]
        )
        best = np.zeros(len(scene))
        for i, j in shapely.STRtree(there).query(scene, "intersects").T:
            best[i] = max(best[i], agreement(scene[i], there[j]))
        rows.append(("all", way, best, len(there), len(scene)))
        sure = scores >= SURE
        rows.append(("sure", way, best[sure], (there_scores >= SURE).sum(), sure.sum()))
    return rows


def measure_all(arguments: argparse.Namespace, model, rng) -> None:
    """Print the rows for every object of each class."""
    for kind in arguments.classes.split(","):
        rows: list[tuple] = []
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for pair in pairs_of(arguments.data, kind, folder):
                path = Path(pair.raster)
                rows += compare_all(model, path, folder, arguments, rng)
        for which, way in itertools.product(("all", "sure"), ("clip", "moved")):
            own = [row for row in rows if row[:2] == (which, way)]
            ious = np.concatenate([best for _, _, best, *_ in own])
            there, here = np.sum([row[3:] for row in own], axis=0)
            print(
                f"{kind:10} {which:6} {way:6} {len(ious):7} {np.median(ious):7.3f} "
                f"{np.percentile(ious, 5):8.3f} {there / here:6.3f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--most", type=int, default=40, help="objects a class")
    parser.add_argument("--context", type=int, default=250, help="px round an object in its clip")
    parser.add_argument("--step", type=int, default=1, help="px by which a scene is moved")
    parser.add_argument("--classes", default="buildings,fields,water")
    parser.add_argument("--centred", action="store_true", help="tiles round prompts or landmarks")
    parser.add_argument("--everything", action="store_true", help="all objects, no prompts")
    arguments = parser.parse_args()
    model = geosam.load_model(arguments.model)
    rng = np.random.default_rng(0)
    print(f"{model.id}: IoU with the scene's, {arguments.context} px of context")
    print(
        f"{'class':10} {'prompt':6} {'in':6} "
        f"{'objects':>7} {'median':>7} {'5th pct':>8} {'alike':>6} {'truth':>6} {'ms':>6}"
    )
    if arguments.everything:
        measure_all(arguments, model, rng)
        return
    for kind in arguments.classes.split(","):
        rows: list[tuple] = []
        left = arguments.most
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for pair in pairs_of(arguments.data, kind, folder):
                truths = read_truth(pair, 0, class_column=None, bands=None)[0][:left]
                left -= len(truths)
                shapes = [truth.shape for truth in truths]
                if shapes:
                    path = Path(pair.raster)
                    rows += compare(model, path, shapes, folder, arguments, rng)
        for prompt in ("box", "click"):
            for way in ("clip", "moved"):
                own = [row for row in rows if row[:2] == (prompt, way)]
                ious, same, truth, cost = np.array([row[2:] for row in own], float).T
                print(
                    f"{kind:10} {prompt:6} {way:6} {len(own):7} {np.median(ious):7.3f} "
                    f"{np.percentile(ious, 5):8.3f} {same.mean():6.2f} {truth.mean():6.3f} "
                    f"{cost.mean():6.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
