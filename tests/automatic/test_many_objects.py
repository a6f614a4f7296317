"""A hundred thousand objects in one run: each once, in batches, in memory that stays small."""

import resource

import geopandas
import numpy as np
import pytest

import geosam
from tests.fakes import FloodModel, write_raster

CELL, CELLS = 10, 320  # px of an object's side; objects along a side of the raster
LARGEST_BATCH = 0.1  # of all objects
MOST_MB = 500


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
