"""Mean IoU of final polygons on labelled images, beside GrabCut and Felzenszwalb.

    python benchmarks/accuracy.py DATA [--model nano] [--json figures.json]

DATA holds one folder a class with `NAME.webp` and `NAME.instances.png` (uint16, 0 = unlabelled)
or `NAME.tif` with footprints in `NAME.gpkg`. Every instance of at least 30 px is prompted once with
its exact box and once with a click at its innermost pixel, in map coordinates, through
`geosam.segment`; the polygons are burnt into the image's pixels and compared with the label.

GrabCut gets the same boxes and Felzenszwalb the same clicks, each in a crop of 256 px round them at
a scale that suits the class (a help that geosam does not get): GrabCut's foreground after 5 rounds,
the middle third of the box being certain, and the region that holds the click.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import rasterio
from affine import Affine
from rasterio.features import rasterize
from scipy import ndimage
from skimage.segmentation import felzenszwalb

import geosam
from geosam.training.scenes import Scene, read_scenes

SMALLEST_PX = 30
CLASS_SCALE = {"buildings": 0.4, "fields": 0.7, "water": 1.0, "trees": 2.0}
GSD_M = {"buildings": 0.07, "fields": 2.0, "water": 5.0, "trees": 0.6}


@dataclass(frozen=True)
class Target:
    """One labelled object of a scene: its mask in a window, its box and its innermost pixel."""

    rows: slice
    cols: slice
    mask: np.ndarray
    click: tuple[float, float]

    @property
    def box(self) -> tuple[int, int, int, int]:
        return self.cols.start, self.rows.start, self.cols.stop, self.rows.stop


def targets(scene: Scene) -> list[Target]:
    found = []
    for number, slices in enumerate(ndimage.find_objects(scene.labels), start=1):
        if slices is None:
            continue
        rows, cols = slices
        mask = scene.labels[slices] == number
        if mask.sum() < SMALLEST_PX:
            continue
        depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
        row, col = np.unravel_index(depth.argmax(), depth.shape)
        found.append(Target(rows, cols, mask, (cols.start + col + 0.5, rows.start + row + 0.5)))
    return found


def iou(predicted: np.ndarray, target: Target) -> float:
    """IoU of a mask of the whole scene with a target."""
    both = (predicted[target.rows, target.cols] & target.mask).sum()
    return float(both / (predicted.sum() + target.mask.sum() - both))


def geosam_ious(model, scene: Scene, found: list[Target], kind: str, folder: Path):
    image = scene.pyramid[0]
    height, width = image.shape[:2]
    gsd = GSD_M[kind]
    path = folder / "scene.tif"
    profile = {
        "driver": "GTiff", "count": 3, "height": height, "width": width, "dtype": "uint8",
        "crs": "EPSG:32633", "transform": Affine(gsd, 0, 500_000, 0, -gsd, 5_000_000),
        "tiled": True,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.moveaxis(image, 2, 0))
    to_map = profile["transform"]
    boxes = [(*(to_map * (t.box[0], t.box[3])), *(to_map * (t.box[2], t.box[1]))) for t in found]
    clicks = [to_map * t.click for t in found]
    result = {}
    for name, prompts in (
        ("box", geosam.PromptSet.of(boxes=boxes)),
        ("click", geosam.PromptSet.of(points=clicks)),
    ):
        began = time.perf_counter()
        polygons = geosam.segment(model, path, prompts, store=folder / "features.zarr")
        seconds = time.perf_counter() - began
        values = []
        for geometry, target in zip(polygons.geometry, found, strict=True):
            burnt = (
                rasterize([geometry], (height, width), transform=to_map, dtype="uint8") > 0
                if geometry is not None
                else np.zeros((height, width), bool)
            )
            values.append(iou(burnt, target))
        result[name] = values
        result[f"{name}_s"] = [seconds / len(found)] * len(found)
        result[f"{name}_score"] = polygons["score"].fillna(0).tolist()
    return result


def grabcut_iou(image: np.ndarray, target: Target, factor: float) -> float:
    height, width = image.shape[:2]
    xmin, ymin, xmax, ymax = target.box
    factor = min(factor, 200 / max(xmax - xmin, ymax - ymin))
    half, x, y = 128 / factor, (xmin + xmax) / 2, (ymin + ymax) / 2
    left, top = max(0, int(x - half)), max(0, int(y - half))
    right, bottom = min(width, int(x + half)), min(height, int(y + half))
    area = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    crop = cv2.resize(image[top:bottom, left:right], None, fx=factor, fy=factor, interpolation=area)
    rows = slice(round((ymin - top) * factor), max(1, round((ymax - top) * factor)))
    cols = slice(round((xmin - left) * factor), max(1, round((xmax - left) * factor)))
    mask = np.full(crop.shape[:2], cv2.GC_BGD, np.uint8)
    mask[rows, cols] = cv2.GC_PR_FGD
    inner = [
        (s.start + (s.stop - s.start) // 3, s.stop - (s.stop - s.start) // 3) for s in (rows, cols)
    ]
    mask[slice(*inner[0]), slice(*inner[1])] = cv2.GC_FGD  # without it, it finds little or nothing
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(crop, mask, None, *models, 5, cv2.GC_INIT_WITH_MASK)
    own = np.isin(mask, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    whole = np.zeros((height, width), bool)
    whole[top:bottom, left:right] = (
        cv2.resize(own, (right - left, bottom - top), interpolation=cv2.INTER_NEAREST) > 0
    )
    return iou(whole, target)


def felzenszwalb_iou(image: np.ndarray, target: Target, factor: float) -> float:
    height, width = image.shape[:2]
    half = 128 / factor
    x, y = target.click
    left, top = max(0, int(x - half)), max(0, int(y - half))
    right, bottom = min(width, int(x + half)), min(height, int(y + half))
    area = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    crop = cv2.resize(image[top:bottom, left:right], None, fx=factor, fy=factor, interpolation=area)
    regions = felzenszwalb(crop, scale=200, sigma=0.8, min_size=50)
    row, col = int((y - top) * factor), int((x - left) * factor)
    row, col = min(row, crop.shape[0] - 1), min(col, crop.shape[1] - 1)
    own = (regions == regions[row, col]).astype(np.uint8)
    whole = np.zeros((height, width), bool)
    whole[top:bottom, left:right] = (
        cv2.resize(own, (right - left, bottom - top), interpolation=cv2.INTER_NEAREST) > 0
    )
    return iou(whole, target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--classes", default="buildings,fields,water,trees")
    parser.add_argument("--no-peers", action="store_true", help="geosam alone")
    arguments = parser.parse_args()
    model = geosam.load_model(arguments.model)
    scenes = read_scenes(arguments.data)
    figures: dict[str, dict[str, float]] = {}
    columns = ("box", "grabcut", "click", "felzenszwalb", "box_s", "click_s")
    print(f"{model.id}: mean IoU of final polygons, and seconds a prompt, encoding included")
    print(f"{'class':10} {'objects':>7} " + " ".join(f"{name:>12}" for name in columns))
    for kind in arguments.classes.split(","):
        values: dict[str, list[float]] = {}
        for scene in scenes:
            if scene.kind != kind:
                continue
            found = targets(scene)
            if not found:
                continue
            with tempfile.TemporaryDirectory() as folder:
                rows = geosam_ious(model, scene, found, kind, Path(folder))
            if not arguments.no_peers:
                image = scene.pyramid[0]
                factor = CLASS_SCALE[kind]
                rows["grabcut"] = [grabcut_iou(image, t, factor) for t in found]
                rows["felzenszwalb"] = [felzenszwalb_iou(image, t, factor) for t in found]
            for name, new in rows.items():
                values.setdefault(name, []).extend(new)
        figures[kind] = {name: float(np.mean(new)) for name, new in values.items()}
        row = " ".join(f"{figures[kind].get(name, float('nan')):12.3f}" for name in columns)
        print(f"{kind:10} {len(values['box']):7} {row}")
        sys.stdout.flush()
    if arguments.json:
        arguments.json.write_text(json.dumps({"model": model.id, "figures": figures}, indent=2))


if __name__ == "__main__":
    main()
