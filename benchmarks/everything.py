"""Every object of labelled scenes: detection and coverage, beside SLIC and Felzenszwalb.

    python benchmarks/everything.py DATA [--model nano] [--classes fields,trees] [--most 5]

DATA is laid out as for `accuracy.py`. Each scene is segmented twice, with overlaps and with
`coverage`. SLIC and Felzenszwalb get the whole image and are set to give about as many segments as
`coverage` did. The columns:

recall      share of labelled objects of at least 30 px that one segment meets with IoU 0.5
precision   of boundary pixels: share of the outlines of segments met that lie within 2 px of the
            truth's outline
covered     share of valid ground under a segment; `masks` before gaps are closed
cpu s/Mpx   processor seconds per million pixels, encoding included
MB          by which the peak memory of the process grew; 0 where an earlier scene needed more
"""

import argparse
import resource
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas
import rasterio
from accuracy import GSD_M, SMALLEST_PX
from affine import Affine
from rasterio.features import rasterize
from scipy import ndimage
from skimage.segmentation import felzenszwalb, find_boundaries, slic

import geosam
from geosam.training.scenes import read_scenes

NEAR_PX = 2


def write(path: Path, image: np.ndarray, gsd: float) -> Affine:
    height, width = image.shape[:2]
    transform = Affine(gsd, 0, 500_000, 0, -gsd, 5_000_000)
    profile = {
        "driver": "GTiff", "count": 3, "height": height, "width": width, "dtype": "uint8",
        "crs": "EPSG:32633", "transform": transform, "tiled": True,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.moveaxis(image, 2, 0))
    return transform


def best_matches(truth: np.ndarray, segments: list[tuple[slice, slice, np.ndarray]]):
    """Of each labelled object the IoU of the segment that meets it best, and that segment."""
    sizes = np.bincount(truth.ravel())
    best = {label: (0.0, -1) for label in np.flatnonzero(sizes >= SMALLEST_PX) if label}
    for number, (rows, cols, mask) in enumerate(segments):
        area = mask.sum()
        shared = np.bincount(truth[rows, cols][mask])
        for label in np.flatnonzero(shared):
            if label in best:
                iou = shared[label] / (area + sizes[label] - shared[label])
                best[label] = max(best[label], (float(iou), number))
    return best


def figures(truth: np.ndarray, segments, valid: np.ndarray) -> dict[str, float]:
    best = best_matches(truth, segments)
    near = {}
    hits = total = 0
    for label, (iou, number) in best.items():
        if iou < 0.5:
            continue
        rows, cols, mask = segments[number]
        grown = tuple(slice(max(s.start - 4, 0), s.stop + 4) for s in (rows, cols))
        canvas = np.zeros(truth.shape, bool)[grown]
        canvas[
            rows.start - grown[0].start : rows.stop - grown[0].start,
            cols.start - grown[1].start : cols.stop - grown[1].start,
        ] = mask
        edge = find_boundaries(truth[grown] == label, mode="inner")
        close = ndimage.distance_transform_edt(~edge) <= NEAR_PX
        own = find_boundaries(canvas, mode="inner")
        hits, total = hits + (own & close).sum(), total + own.sum()
    near["objects"] = len(best)
    near["met"] = sum(iou >= 0.5 for iou, _ in best.values())
    near["hits"], near["total"] = float(hits), float(total)
    covered = np.zeros(truth.shape, bool)
    for rows, cols, mask in segments:
        covered[rows, cols] |= mask
    near["covered"], near["valid"] = float((covered & valid).sum()), float(valid.sum())
    near["segments"] = len(segments)
    return near


def of_polygons(polygons, shape, transform):
    found = []
    for polygon in polygons.geometry:
        xmin, ymin, xmax, ymax = polygon.bounds
        (left, top), (right, bottom) = ~transform * (xmin, ymax), ~transform * (xmax, ymin)
        rows = slice(max(int(top) - 1, 0), min(int(bottom) + 2, shape[0]))
        cols = slice(max(int(left) - 1, 0), min(int(right) + 2, shape[1]))
        place = transform * Affine.translation(cols.start, rows.start)
        size = rows.stop - rows.start, cols.stop - cols.start
        mask = rasterize([polygon], size, transform=place, dtype="uint8") > 0
        found.append((rows, cols, mask))
    return found


def of_labels(labels: np.ndarray):
    return [
        (*slices, labels[slices] == number)
        for number, slices in enumerate(ndimage.find_objects(labels), start=1)
        if slices is not None
    ]


def measured(work):
    """The result of some work, its processor seconds, and by how many MB it raised the peak."""
    before, began = peak_mb(), time.process_time()
    result = work()
    return result, time.process_time() - began, peak_mb() - before


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def felzenszwalb_of(image: np.ndarray, wanted: int) -> np.ndarray:
    """Felzenszwalb's segments, about as many as wanted."""
    low, high = 1.0, 100_000.0
    for _ in range(8):
        scale = (low * high) ** 0.5
        labels = felzenszwalb(image, scale=scale, sigma=0.8, min_size=20)
        low, high = (scale, high) if labels.max() + 1 > wanted else (low, scale)
    return labels + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--classes", default="buildings,fields,water,trees")
    parser.add_argument("--most", type=int, default=1000, help="scenes a class")
    parser.add_argument("--scales", help="raster px per tile px, such as 0.5,1,2")
    parser.add_argument("--no-peers", action="store_true", help="geosam alone")
    arguments = parser.parse_args()
    model = geosam.load_model(arguments.model)
    scales = [float(s) for s in arguments.scales.split(",")] if arguments.scales else None
    print(f"{model.id}: every object, scales {scales or '1 and coarser'}")
    print(
        f"{'class':10} {'method':13} {'segments':>8} {'objects':>7} {'recall':>7} "
        f"{'precision':>9} {'covered':>8} {'cpu s/Mpx':>9} {'MB':>7}"
    )
    for kind in arguments.classes.split(","):
        scenes = [s for s in read_scenes(arguments.data) if s.kind == kind][: arguments.most]
        rows: list[dict[str, object]] = []
        for scene in scenes:
            image = scene.pyramid[0]
            valid = np.ones(image.shape[:2], bool)
            px = image.shape[0] * image.shape[1] / 1e6
            with tempfile.TemporaryDirectory() as name:
                path = Path(name) / "scene.tif"
                transform = write(path, image, GSD_M[kind])
                wanted = 100
                for method in ("geosam", "coverage"):
                    shutil.rmtree(next(Path(name).glob("*.zarr"), "none"), ignore_errors=True)
                    polygons, seconds, peak = measured(
                        lambda path=path, method=method: pandas.concat(
                            geosam.everything(
                                model, path, coverage=method == "coverage", scales=scales
                            )
                        )
                    )
                    found = figures(
                        scene.labels, of_polygons(polygons, valid.shape, transform), valid
                    )
                    rows.append({"method": method, "s": seconds, "b": peak, "px": px} | found)
                    wanted = max(len(polygons), 2)
            if arguments.no_peers:
                continue
            for method, work in (
                ("SLIC", lambda image=image, n=wanted: slic(image, n_segments=n, start_label=1)),
                ("Felzenszwalb", lambda image=image, n=wanted: felzenszwalb_of(image, n)),
            ):
                labels, seconds, peak = measured(work)
                found = figures(scene.labels, of_labels(labels), valid)
                rows.append({"method": method, "s": seconds, "b": peak, "px": px} | found)
        table = pandas.DataFrame(rows)
        for method, own in table.groupby("method", sort=False):
            peak = own["b"].sum()
            print(
                f"{kind:10} {method:13} {own['segments'].sum():8} {own['objects'].sum():7} "
                f"{own['met'].sum() / own['objects'].sum():7.2f} "
                f"{own['hits'].sum() / max(own['total'].sum(), 1):9.2f} "
                f"{own['covered'].sum() / own['valid'].sum():8.3f} "
                f"{own['s'].sum() / own['px'].sum():9.1f} {peak:7.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
