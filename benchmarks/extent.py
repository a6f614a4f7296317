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
import shapely
from accuracy import pairs_of

import geosam
from geosam.evaluation.clicks import next_click
from geosam.evaluation.truth import read_truth
from tiles import Raster, Window

CONTEXT = (253, 247, 251, 259)  # px: left, top, right, bottom


def write_clip(path: Path, raster: Raster, window: Window) -> None:
    chip = raster.read(window, (1, 2, 3))
    profile = {
        "driver": "GTiff", "count": 3, "height": window.height, "width": window.width,
        "dtype": "uint8", "crs": chip.frame.crs.to_wkt(), "transform": chip.frame.transform,
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
    print(f"{model.id}: IoU of clip and scene")
    print(f"{'class':10} {'prompt':7} {'objects':>7} {'median':>8} {'5th pct':>8}")
    for kind in arguments.classes.split(","):
        ious: dict[str, list[float]] = {"box": [], "click": []}
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for pair in pairs_of(arguments.data, kind, folder):
                left_over = arguments.most - len(ious["box"])
                truths = read_truth(pair, 0, class_column=None, bands=None)[0][:left_over]
                with Raster.open(pair.raster) as raster:
                    for number, truth in enumerate(truths):
                        xmin, ymin, xmax, ymax = (round(edge) for edge in truth.shape.bounds)
                        window = raster.window & Window.spanning(
                            xmin - CONTEXT[0], ymin - CONTEXT[1],
                            xmax + CONTEXT[2], ymax + CONTEXT[3],
                        )  # fmt: skip
                        clip = folder / f"{Path(pair.raster).stem}-{number}.tif"
                        write_clip(clip, raster, window)
                        for prompt, prompts in prompts_of(truth.shape, raster).items():
                            found = [
                                geosam.segment(model, path, prompts).geometry[0]
                                for path in (pair.raster, clip)
                            ]
                            ious[prompt].append(agreement(*found))
        for name, values in ious.items():
            median, low = np.median(values), np.percentile(values, 5)
            print(f"{kind:10} {name:7} {len(values):7} {median:8.3f} {low:8.3f}", flush=True)


if __name__ == "__main__":
    main()
