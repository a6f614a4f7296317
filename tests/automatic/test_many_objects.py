"""Many objects in one run: each once, in batches, in memory that stays small."""

import resource
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import geopandas
import numpy as np
import pytest

import geosam
from geosam.label_raster import trace_down
from tests.fakes import FloodModel, write_raster

CELL, CELLS = 10, 320  # px of an object's side; objects along a side of the raster
LARGEST_BATCH = 0.1  # of all objects
MOST_MB = 500
MOST_TRACED_MB = 400  # 1,000 if the ground were simplified all at once


@pytest.mark.slow
def test_a_hundred_thousand_objects(tmp_path):
    rows, cols = np.indices((CELLS, CELLS)) % 2
    colours = (100 + 40 * rows + 20 * cols).astype(np.uint8)  # none like a neighbour's
    image = np.kron(colours, np.ones((CELL, CELL), np.uint8))
    path = write_raster(tmp_path / "a.tif", image, tiled=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    largest = 0

    def counted():
        nonlocal largest
        for batch in geosam.everything(FloodModel(), path, scales=[1, 2], density=16):
            largest = max(largest, len(batch))
            yield batch

    geosam.write(counted(), tmp_path / "all.gpkg")
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    objects = geopandas.read_file(tmp_path / "all.gpkg")
    assert len(objects) == CELLS**2 == objects["id"].nunique()
    assert objects.area.between(0.9 * CELL**2, 1.1 * CELL**2).all()
    places = ((objects.centroid.x // CELL).astype(int), (objects.centroid.y // CELL).astype(int))
    assert len(set(zip(*places, strict=True))) == CELLS**2
    assert largest < LARGEST_BATCH * CELLS**2
    assert grown_mb < MOST_MB


def peak_mb():
    """Of this process since its peak was last forgotten; Linux."""
    (line,) = (t for t in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in t)
    return int(line.split()[1]) / 1024


def traced(path):
    """How many labels a raster has, and by how much tracing them makes a process grow, in MB."""
    Path("/proc/self/clear_refs").write_text("5")  # a peak is inherited otherwise
    before = peak_mb()
    count = sum(len(labels) for labels, _ in trace_down(path, simplify_m=1))
    return count, peak_mb() - before


@pytest.mark.slow
def test_shared_ground_is_traced_in_memory_that_stays_small(tmp_path):
    rows, cols = 1024, 64
    labels = np.arange(1, rows * cols + 1, dtype=np.uint32).reshape(rows, cols)
    wavy = np.arange(cols * 16) + np.sin(np.arange(rows * 16) / 3).round().astype(int)[:, None]
    columns = wavy.clip(0, cols * 16 - 1) // 16
    image = np.take_along_axis(labels.repeat(16, 0), columns, 1)
    path = write_raster(tmp_path / "labels.tif", image, tiled=True, compress="deflate")
    with ProcessPoolExecutor(1, get_context("spawn")) as process:  # which has nothing else in it
        count, grown_mb = process.submit(traced, path).result()
    assert count == rows * cols
    assert grown_mb < MOST_TRACED_MB
