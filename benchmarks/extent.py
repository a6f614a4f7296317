"""Does a result depend on the raster's extent? IoU of the same prompt's polygon in clip and scene.

    python benchmarks/extent.py DATA [--model nano] [--most 40]

DATA is laid out as for `accuracy.py`. Each object is prompted with its box and with a click, in the
whole scene and in a clip with about 250 px of context, whose origin lies anywhere.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from accuracy import targets
from affine import Affine

import geosam
from geosam.training.scenes import read_scenes

CONTEXT = (253, 247, 251, 259)  # px: left, top, right, bottom


def write(path: Path, image: np.ndarray, left: int, top: int) -> None:
    height, width = image.shape[:2]
    profile = {
        "driver": "GTiff", "count": 3, "height": height, "width": width, "dtype": "uint8",
        "crs": "EPSG:32633", "transform": Affine(1, 0, 500_000 + left, 0, -1, 5_000_000 - top),
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.moveaxis(image, 2, 0))


def agreement(one, two) -> float:
    if one is None or two is None:
        return float(one is two)
    return one.intersection(two).area / one.union(two).area


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--most", type=int, default=40, help="objects a class")
    parser.add_argument("--classes", default="buildings,fields,water")
    arguments = parser.parse_args()
    model = geosam.load_model(arguments.model)
    scenes = read_scenes(arguments.data)
    print(f"{model.id}: IoU of clip and scene")
    print(f"{'class':10} {'prompt':7} {'objects':>7} {'median':>8} {'5th pct':>8}")
    for kind in arguments.classes.split(","):
        ious: dict[str, list[float]] = {"box": [], "click": []}
        for scene in (scene for scene in scenes if scene.kind == kind):
            image = scene.pyramid[0]
            height, width = image.shape[:2]
            found = targets(scene)[: arguments.most - len(ious["box"])]
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                write(folder / "scene.tif", image, 0, 0)
                for number, target in enumerate(found):
                    xmin, ymin, xmax, ymax = target.box
                    left, top = max(0, xmin - CONTEXT[0]), max(0, ymin - CONTEXT[1])
                    right, bottom = min(width, xmax + CONTEXT[2]), min(height, ymax + CONTEXT[3])
                    clip = folder / f"clip{number}.tif"
                    write(clip, image[top:bottom, left:right], left, top)
                    x, y = 500_000 + target.click[0], 5_000_000 - target.click[1]
                    box = (500_000 + xmin, 5_000_000 - ymax, 500_000 + xmax, 5_000_000 - ymin)
                    for name, prompts in (
                        ("box", geosam.PromptSet.of(boxes=[box])),
                        ("click", geosam.PromptSet.of(points=[(x, y)])),
                    ):
                        pair = [
                            geosam.segment(model, path, prompts).geometry[0]
                            for path in (folder / "scene.tif", clip)
                        ]
                        ious[name].append(agreement(*pair))
        for name, values in ious.items():
            median, low = np.median(values), np.percentile(values, 5)
            print(f"{kind:10} {name:7} {len(values):7} {median:8.3f} {low:8.3f}", flush=True)


if __name__ == "__main__":
    main()
