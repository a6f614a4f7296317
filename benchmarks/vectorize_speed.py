"""How long a mask takes to become a polygon: noisy blobs of 128 x 128 logits.

Usage: python benchmarks/vectorize_speed.py [MASKS]
"""

import sys
import time

import numpy as np
import shapely
from affine import Affine
from pyproj import CRS

from geosam.masks import Mask
from geosam.polygons import outline, vectorize
from tiles.frame import Frame

SIZE = 128
RADIUS = 32
UTM = CRS("EPSG:32633")
ROW = "{:24}{:>10}{:>10}{:>10}{:>10}"


def blob(index, rng, with_gaps):
    """A blob about 64 cells wide, with a rough border, specks and holes."""
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    angle = np.arctan2(y - SIZE / 2, x - SIZE / 2)
    radius = RADIUS * (1 + 0.2 * np.sin(3 * angle + index) + 0.1 * np.sin(7 * angle))
    distance = radius - np.hypot(x - SIZE / 2, y - SIZE / 2)
    coarse = np.kron(rng.normal(size=(SIZE // 4, SIZE // 4)), np.ones((4, 4)))
    logits = (distance + 2 * coarse + rng.normal(size=(SIZE, SIZE))).astype(np.float32)
    valid = None
    if with_gaps:
        valid = np.ones((2 * SIZE, 2 * SIZE), bool)
        valid[: SIZE + index % 20, : SIZE - index % 30] = False
    place = Affine(0.5, 0, 500_000 + index, 0, -0.5, 5_000_000)
    frame = Frame((SIZE, SIZE), place, UTM)
    return Mask(str(index), "ok", logits, frame, valid, 0.9, 0.9, "0,0", 1.0)


def measure(count, with_gaps, simplify_m):
    """Seconds for each mask, seconds for all with their areas, and the polygons."""
    rng = np.random.default_rng(0)
    each, total, vertices = [], 0.0, []
    for start in range(0, count, 500):
        masks = [blob(i, rng, with_gaps) for i in range(start, min(start + 500, count))]
        for mask in masks:
            begin = time.perf_counter()
            outline(mask, simplify_m)
            each.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        polygons = vectorize(masks, simplify_m=simplify_m)
        total += time.perf_counter() - begin
        vertices.append(shapely.get_num_coordinates(polygons.geometry))
    return np.array(each), total, np.concatenate(vertices)


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    print(f"{count} masks; milliseconds a mask\n")
    print(ROW.format("", "median", "p95", "all", "vertices"))
    for name, with_gaps, simplify_m in (
        ("exact", False, 0.0),
        ("default", False, None),
        ("default, with no data", True, None),
    ):
        each, total, vertices = measure(count, with_gaps, simplify_m)
        median, p95 = 1000 * np.percentile(each, [50, 95])
        times = (f"{value:.2f}" for value in (median, p95, 1000 * total / count))
        print(ROW.format(name, *times, f"{np.median(vertices):.0f}"))


if __name__ == "__main__":
    main()
