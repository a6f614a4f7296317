"""What ten minutes of fine-tuning on 100 polygons of a place are worth on its other polygons.

    python benchmarks/adapt.py DATA [--model nano] [--minutes 10] [--steps N] [--threads 2]
        [--keep FOLDER]

DATA holds `fields/NAME.webp` with `NAME.instances.png`, and the same for other classes. Each image
of fields is cut down its middle, and both halves become rasters. 100 of all fields of the left
halves, drawn at random, go through `geosam.train`; the fields of the right ones are measured before
and after, by the box, by one click in the middle, and by one click in three places of the object
each. Then 100 of the right halves are learned, and the left ones measured. A field that the cut
goes through is left out. What the models have forgotten is measured on another class.
"""

import argparse
import tempfile
import time
from pathlib import Path

import geopandas
import numpy as np
import rasterio
import shapely
import torch
from affine import Affine
from rasterio.features import shapes

import geosam
from geosam.evaluation.measures import iou
from geosam.training.measure import gain, inner_points
from geosam.training.scenes import Scene, read_scenes

GSD_M = {"fields": 2.0, "water": 5.0, "trees": 0.6, "buildings": 0.07}
SMALLEST_PX = 30  # area below which an object is not measured
POLYGONS = 100


def write_pair(folder: Path, name: str, scene: Scene, cols: slice) -> tuple[Path, Path, int]:
    """Columns of a scene as a raster, and its objects that lie within them as polygons."""
    image, labels = scene.pyramid[0][:, cols], scene.labels[:, cols]
    gsd = GSD_M[scene.kind]
    place = Affine(gsd, 0, 500_000, 0, -gsd, 5_000_000)
    height, width = labels.shape
    raster, truth = folder / f"{name}.tif", folder / f"{name}.gpkg"
    profile = {
        "driver": "GTiff", "count": 3, "height": height, "width": width, "dtype": "uint8",
        "crs": "EPSG:32633", "transform": place, "tiled": True, "photometric": "RGB",
    }  # fmt: skip
    with rasterio.open(raster, "w", **profile) as file:
        file.write(np.moveaxis(image, 2, 0))
    whole = np.bincount(scene.labels.ravel())
    here = np.bincount(labels.ravel(), minlength=len(whole))
    kept = np.flatnonzero((whole == here) & (whole >= SMALLEST_PX))[1:]
    parts: dict[int, list[shapely.Geometry]] = {}
    for outline, value in shapes(labels.astype(np.int32), labels > 0, transform=place):
        parts.setdefault(int(value), []).append(shapely.geometry.shape(outline))
    polygons = [shapely.union_all(parts[number]) for number in kept.tolist()]
    geopandas.GeoDataFrame(geometry=polygons, crs="EPSG:32633").to_file(truth)
    return raster, truth, len(polygons)


def choose(pairs: list[tuple[Path, Path]]) -> list[tuple[Path, geopandas.GeoDataFrame]]:
    """100 polygons at random of all pairs, always the same."""
    frames = [geopandas.read_file(truth) for _, truth in pairs]
    starts = np.cumsum([0, *map(len, frames)])
    taken = np.random.default_rng(0).permutation(starts[-1]) < POLYGONS
    chosen = [
        (raster, frame[taken[start : start + len(frame)]])
        for (raster, _), frame, start in zip(pairs, frames, starts[:-1], strict=True)
    ]
    return [(raster, frame) for raster, frame in chosen if len(frame)]


def marks(model, pairs) -> dict[str, np.ndarray]:
    """IoU of final polygons with the truth, by prompt."""
    clicks, boxes = [], []
    for raster, truth in pairs:
        polygons = geopandas.read_file(truth).geometry.to_numpy()
        points = inner_points(polygons)  # (N, 3, 2), the middle first
        for found, times, prompts in (
            (clicks, points.shape[1], geosam.PromptSet.of(points=points.reshape(-1, 2))),
            (boxes, 1, geosam.PromptSet.of(boxes=shapely.bounds(polygons))),
        ):
            result = geosam.segment(model, raster, prompts)
            asked = zip(result.geometry, np.repeat(polygons, times), strict=True)
            found += np.array([iou(a, b) for a, b in asked]).reshape(-1, times).tolist()
    by_click, by_box = np.array(clicks), np.array(boxes)
    return {
        "1 click in the middle": by_click[:, 0],
        "1 click, three places": by_click.mean(1),
        "box": by_box[:, 0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--steps", type=int, help="at most; on a machine that others load")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--other", default="water", help="class to measure forgetting on")
    parser.add_argument("--keep", type=Path, help="folder to work in; run again to resume")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    scenes = read_scenes(arguments.data)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        halves = {"left": [], "right": []}
        other = []
        for number, scene in enumerate(s for s in scenes if s.kind == "fields"):
            middle = scene.labels.shape[1] // 2
            for half, cols in (("left", slice(0, middle)), ("right", slice(middle, None))):
                halves[half].append(write_pair(folder, f"{half}{number}", scene, cols)[:2])
        for number, scene in enumerate(s for s in scenes if s.kind == arguments.other):
            other.append(write_pair(folder, f"other{number}", scene, slice(None))[:2])
        base = geosam.load_model(arguments.model)
        before_other = marks(base, other)
        both = []
        for half, opposite in (("left", "right"), ("right", "left")):
            out = folder / f"{half}.safetensors"
            before = marks(base, halves[opposite])
            if not out.exists():
                adapt(geosam.load_model(arguments.model), choose(halves[half]), out, arguments)
            new = geosam.load_model(out)
            both.append((before, marks(new, halves[opposite])))
            show(f"learned {half}, fields of the other halves", *both[-1])
            show(f"learned {half}, forgetting: {arguments.other}", before_other, marks(new, other))
        old, now = ([pair[i] for pair in both] for i in (0, 1))
        show("fields of the other halves, both ways", joined(old), joined(now))


def joined(some: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The IoUs of several sets of objects as those of one."""
    return {name: np.concatenate([values[name] for values in some]) for name in some[0]}


def adapt(model, learned, out: Path, arguments: argparse.Namespace) -> None:
    """Train on polygons, and say what it took."""
    began, cpu = time.perf_counter(), time.process_time()
    result = geosam.train(model, learned, out, minutes=arguments.minutes, steps=arguments.steps)
    sums = [sum(len(getattr(p, n)) for p in result.places) for n in ("learned", "held_out")]
    print(
        f"{result.id}: {sums[0]} polygons learned from, {sums[1]} held out to stop by, "
        f"{result.steps} steps, the weights after {result.kept} kept, "
        f"{time.perf_counter() - began:.0f} s, CPU time {time.process_time() - cpu:.0f} s "
        f"with {arguments.threads} threads"
    )


def show(title: str, before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> None:
    """Print what changed, by prompt."""
    print(f"{title}, {len(after['box'])} polygons, mean IoU of final polygons")
    for name, values in after.items():
        mean, low, high = gain(before[name], values)
        print(
            f"  {name:21} {before[name].mean():.3f} -> {values.mean():.3f}, "
            f"{mean:+.3f} (95 % interval {low:+.3f} to {high:+.3f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
