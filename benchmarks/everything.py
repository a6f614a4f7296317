"""Every object of labelled scenes: detection and coverage, beside SLIC and Felzenszwalb.

    python benchmarks/everything.py DATA [--model nano] [--classes fields,trees] [--most 5]
        [--methods coverage,SLIC] [--halved buildings] [--notes FILE]

DATA is laid out as for `accuracy.py`; of more than `--most` images a class some are drawn at
random, the same ones each time. Each is segmented with overlaps, in tiles of a grid (`geosam`) and
in `centred` ones, and with `coverage`. SLIC and Felzenszwalb get the whole image and are set to
give about as many segments as `coverage` did. What is known of an image is kept in the notes and
not measured again. The columns:

recall      share of labelled objects of at least 30 px that one segment meets with IoU 0.5
precision   of boundary pixels: share of the outlines of segments met that lie within 2 px of the
            truth's outline
covered     share of valid ground under a segment, and of the image where it is least
cpu s/Mpx   processor seconds per million pixels, encoding included
MB          by which the peak memory of the process grew; 0 where an earlier scene needed more
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator
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
from geosam.training.scenes import Scene, make_scene, read_scenes

NEAR_PX = 2
NEAR_COUNT = 0.05  # how far from the wanted number of segments Felzenszwalb's may be
METHODS = "geosam,centred,coverage,SLIC,Felzenszwalb"


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
    near["met"] = int(sum(iou >= 0.5 for iou, _ in best.values()))
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
        count = labels.max() + 1
        if abs(count - wanted) <= NEAR_COUNT * wanted:
            break
        low, high = (scale, high) if count > wanted else (low, scale)
    return labels + 1


def images_of(data: Path, kind: str, most: int) -> list[Path]:
    """The label images and mosaics of a class, or some of them, drawn at random."""
    paths = sorted([*(data / kind).glob("*.instances.png"), *(data / kind).glob("*.tif")])
    drawn = np.random.default_rng(0).permutation(len(paths))[:most]
    return [paths[i] for i in sorted(drawn)]


def read(path: Path, *, halved: bool) -> Scene | None:
    """A scene; None if nothing is labelled."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / path.parent.name
        folder.mkdir()
        stem = path.name.removesuffix(".instances.png").removesuffix(".tif")
        for part in path.parent.glob(f"{stem}.*"):
            (folder / part.name).symlink_to(part.absolute())
        scenes = read_scenes(Path(name))
    if not scenes or not halved:
        return scenes[0] if scenes else None
    (scene,) = scenes
    return make_scene(scene.kind, scene.pyramid[1], scene.labels[::2, ::2])


def rows_of(
    model, scene: Scene, gsd: float, methods: list[str], scales, wanted: int | None
) -> Iterator[dict]:
    """The figures of each method on one scene."""
    image = scene.pyramid[0]
    shape = image.shape[:2]
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "scene.tif"
        transform = write(path, image, gsd)
        for method in methods:
            if method in ("geosam", "centred", "coverage"):
                made, seconds, peak = measured(
                    lambda method=method: pandas.concat(
                        geosam.everything(
                            model, path, scales=scales, coverage=method == "coverage",
                            centred=method == "centred",
                            store=Path(name) / f"{method}.zarr",
                        )
                    )
                )  # fmt: skip
                segments = of_polygons(made, shape, transform)
                wanted = len(made) if method == "coverage" else wanted
            else:
                if wanted is None:
                    raise SystemExit(f"{method}: takes its number of segments from coverage")
                count = max(wanted, 2)
                labels, seconds, peak = measured(
                    lambda method=method, count=count: (
                        slic(image, n_segments=count, start_label=1)
                        if method == "SLIC"
                        else felzenszwalb_of(image, count)
                    )
                )
                segments = of_labels(labels)
            found = figures(scene.labels, segments, np.ones(shape, bool))
            yield {
                "method": method,
                "s": seconds,
                "b": peak,
                "px": image[..., 0].size / 1e6,
            } | found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--classes", default="buildings,fields,water,trees")
    parser.add_argument("--most", type=int, default=1000, help="images a class")
    parser.add_argument("--scales", help="raster px per tile px, such as 0.5,1,2")
    parser.add_argument("--methods", default=METHODS, help="with commas between")
    parser.add_argument("--halved", default="", help="classes whose images are halved")
    parser.add_argument("--notes", type=Path, help="a file of JSON lines")
    arguments = parser.parse_args()
    model = geosam.load_model(arguments.model)
    scales = [float(s) for s in arguments.scales.split(",")] if arguments.scales else None
    methods = arguments.methods.split(",")
    notes = arguments.notes
    known = [json.loads(line) for line in notes.open()] if notes and notes.exists() else []
    print(f"{model.id}: every object, scales {scales or '1 and coarser'}")
    print(
        f"{'class':10} {'method':13} {'images':>6} {'segments':>8} {'objects':>7} {'recall':>7} "
        f"{'precision':>9} {'covered':>8} {'least':>6} {'cpu s/Mpx':>9} {'MB':>7}"
    )
    for kind in arguments.classes.split(","):
        halved = kind in arguments.halved.split(",")
        rows: list[dict] = []
        for path in images_of(arguments.data, kind, arguments.most):
            about = {
                "image": f"{kind}/{path.name}", "halved": halved, "model": model.id,
                "scales": scales,
            }  # fmt: skip
            before = {row["method"]: row for row in known if all(row[k] == about[k] for k in about)}
            rows += [before[method] for method in methods if method in before]
            left = [method for method in methods if method not in before]
            scene = read(path, halved=halved) if left else None
            if scene is None:
                continue
            wanted = before["coverage"]["segments"] if "coverage" in before else None
            gsd = GSD_M[kind] * (1 + halved)
            for row in rows_of(model, scene, gsd, left, scales, wanted):
                rows.append(row)
                if notes:
                    with notes.open("a") as file:
                        file.write(json.dumps(about | row) + "\n")
        table = pandas.DataFrame(rows)
        for method in methods:
            own = table[table["method"] == method]
            print(
                f"{kind:10} {method:13} {len(own):6} {own['segments'].sum():8} "
                f"{own['objects'].sum():7} {own['met'].sum() / own['objects'].sum():7.2f} "
                f"{own['hits'].sum() / max(own['total'].sum(), 1):9.2f} "
                f"{own['covered'].sum() / own['valid'].sum():8.3f} "
                f"{(own['covered'] / own['valid']).min():6.3f} "
                f"{own['s'].sum() / own['px'].sum():9.1f} {own['b'].sum():7.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
