"""What ten minutes of fine-tuning on 100 polygons of a place are worth on its other polygons.

    python benchmarks/adapt.py DATA [--model nano] [--minutes 10] [--steps N] [--threads 2]
        [--keep FOLDER]

DATA holds `fields/NAME.webp` with `NAME.instances.png`, and the same for other classes. Each image
of fields is cut down its middle. The left halves become rasters, and 100 of all their fields, drawn
at random, go through `geosam.train`; the fields of the right halves are measured before and after,
on rasters of their own, by the box, by one click in the middle, and by one click in three places of
the object each. A field that the cut goes through is left out. What the model has forgotten is
measured on another class.
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
        drawn, tested, other = [], [], []
        for number, scene in enumerate(s for s in scenes if s.kind == "fields"):
            middle = scene.labels.shape[1] // 2
            drawn.append(write_pair(folder, f"left{number}", scene, slice(0, middle))[:2])
            tested.append(write_pair(folder, f"right{number}", scene, slice(middle, None))[:2])
        learned = choose(drawn)
        for number, scene in enumerate(s for s in scenes if s.kind == arguments.other):
            other.append(write_pair(folder, f"other{number}", scene, slice(None))[:2])
        base = geosam.load_model(arguments.model)
        before, before_other = marks(base, tested), marks(base, other)
        out = folder / "adapted.safetensors"
        began, cpu = time.perf_counter(), time.process_time()
        if not out.exists():
            result = geosam.train(
                base, learned, out, minutes=arguments.minutes, steps=arguments.steps
            )
            sums = [sum(len(getattr(p, n)) for p in result.places) for n in ("learned", "held_out")]
            print(
                f"{result.id}: {sums[0]} polygons learned from, {sums[1]} held out to stop by, "
                f"{result.steps} steps, the weights after {result.kept} kept, "
                f"{time.perf_counter() - began:.0f} s, CPU time {time.process_time() - cpu:.0f} s "
                f"with {arguments.threads} threads"
            )
        new = geosam.load_model(out)
        for title, old, pairs in (
            ("fields of the other halves", before, tested),
            (f"forgetting: {arguments.other}", before_other, other),
        ):
            now = marks(new, pairs)
            print(f"{title}, {len(now['box'])} polygons, mean IoU of final polygons")
            for name, values in now.items():
                mean, low, high = gain(old[name], values)
                print(
                    f"  {name:21} {old[name].mean():.3f} -> {values.mean():.3f}, "
                    f"{mean:+.3f} (95 % interval {low:+.3f} to {high:+.3f})"
                )


if __name__ == "__main__":
    main()
