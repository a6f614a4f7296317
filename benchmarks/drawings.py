"""Mean IoU of final polygons on drawings: flat colours without noise, as no camera makes them.

    python benchmarks/drawings.py [--model nano] [--noise 0]

Squares, discs, L shapes and strips of three sizes and three contrasts on plain grounds, each
prompted with its exact box and with a click at its innermost pixel. `--noise` is the spread of the
grey levels that are added: with a few, the same scenes look like photographs to a network.
"""

import argparse
import tempfile
from pathlib import Path

import cv2
import numpy as np
import rasterio
from affine import Affine
from rasterio.features import rasterize

import geosam

SIDE = 768
SIZES_PX = (24, 70, 200)
CONTRASTS = (20, 60, 120)
PLACES = ((128, 128), (400, 150), (150, 420), (500, 500))  # of four objects, col and row
GROUNDS = ((90, 90, 90), (60, 110, 70), (30, 40, 90))
Mask = np.ndarray


def shapes(size: int) -> list[Mask]:
    """The four shapes on an empty canvas each, about `size` px across."""
    drawn = []
    for number, (col, row) in enumerate(PLACES):
        canvas = np.zeros((SIDE, SIDE), np.uint8)
        half = size // 2
        square = (slice(row - half, row + half), slice(col - half, col + half))
        if number == 0:
            canvas[square] = 1
        elif number == 1:
            cv2.circle(canvas, (col, row), half, 1, -1)
        elif number == 2:
            canvas[square] = 1
            canvas[row - half : row, col : col + half] = 0
        else:
            ends = [(col - half, row - half // 2), (col + half, row + half // 2)]
            cv2.line(canvas, *ends, 1, max(3, size // 6))
        drawn.append(canvas > 0)
    return drawn


def innermost(mask: Mask) -> tuple[float, float]:
    depth = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    row, col = np.unravel_index(depth.argmax(), depth.shape)
    return col + 0.5, row + 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="nano")
    parser.add_argument("--noise", type=float, default=0.0, help="spread, grey levels")
    arguments = parser.parse_args()
    model = geosam.load_model(arguments.model)
    to_map = Affine(1, 0, 500_000, 0, -1, 5_000_000)
    print(f"{model.id}: mean IoU on drawings, noise {arguments.noise:g}")
    print(f"{'size, px':>8} {'contrast':>8} {'box':>6} {'click':>6}")
    everything: dict[str, list[float]] = {"box": [], "click": []}
    for size in SIZES_PX:
        for contrast, ground in zip(CONTRASTS, GROUNDS, strict=True):
            masks = shapes(size)
            image = np.full((SIDE, SIDE, 3), ground, np.float64)
            for mask in masks:
                image[mask] += contrast
            image += np.random.default_rng(0).normal(0, arguments.noise, image.shape)
            prompts = {"box": [], "click": []}
            for mask in masks:
                rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
                low, high = to_map * (cols[0], rows[-1] + 1), to_map * (cols[-1] + 1, rows[0])
                prompts["box"].append((*low, *high))
                prompts["click"].append(to_map * innermost(mask))
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "drawing.tif"
                profile = {
                    "driver": "GTiff", "count": 3, "height": SIDE, "width": SIDE,
                    "dtype": "uint8", "crs": "EPSG:32633", "transform": to_map,
                }  # fmt: skip
                with rasterio.open(path, "w", **profile) as file:
                    file.write(np.moveaxis(image.clip(0, 255).astype(np.uint8), 2, 0))
                means = {}
                for name, own in (
                    ("box", geosam.PromptSet.of(boxes=prompts["box"])),
                    ("click", geosam.PromptSet.of(points=prompts["click"])),
                ):
                    values = []
                    polygons = geosam.segment(model, path, own)
                    for mask, geometry in zip(masks, polygons.geometry, strict=True):
                        found = np.zeros(mask.shape, bool)
                        if geometry is not None:
                            found = rasterize([geometry], mask.shape, transform=to_map) > 0
                        values.append((found & mask).sum() / (found | mask).sum())
                    means[name] = float(np.mean(values))
                    everything[name] += values
            print(f"{size:8} {contrast:8} {means['box']:6.2f} {means['click']:6.2f}", flush=True)
    print(f"{'all':>17} {np.mean(everything['box']):6.2f} {np.mean(everything['click']):6.2f}")


if __name__ == "__main__":
    main()
