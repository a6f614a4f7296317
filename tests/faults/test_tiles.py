"""Encoding that is killed, and features that rot: nothing is lost or believed without warning."""

import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from geosam.scene import Scene
from geosam.verbs import encode, segment
from tests.fakes import FloodModel, discs, tiles_of, write_raster
from tests.faults.child import PROCESSES
from tests.faults.verbs import chunk_of, flip
from tests.geosam.test_verbs import clicks
from tiles import FeatureStore, StoreDamaged

KILLS = 20
PAUSE_S = 0.03  # of the encoder, a batch: long enough for a kill to meet every kind of work


class Slow(FloodModel):
    """Takes its time."""

    def encode(self, images):
        time.sleep(PAUSE_S)
        return super().encode(images)


def encode_slowly(raster, store, begun):
    """What the process that is killed does; tells `begun` of every tile."""
    encode(Slow(64), raster, store, progress=lambda *_: begun.send(None))


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A raster that takes 225 tiles of 64 px, a quarter of which have no data."""
    image = discs((700, 730), (100, 100, 20), (350, 360, 25))
    image += np.random.default_rng(0).integers(0, 9, image.shape, np.uint8)
    image[350:, 365:] = 0
    path = tmp_path_factory.mktemp("scene") / "a.tif"
    return write_raster(path, image, nodata=0)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_twenty_kills_leave_what_an_undisturbed_run_leaves(scene, tmp_path):
    whole = encode(FloodModel(64), scene, tmp_path / "whole.zarr")
    path = tmp_path / "killed.zarr"
    moments = random.Random(0)
    done = []
    for number in range(KILLS):
        ours, theirs = PROCESSES.Pipe(duplex=False)
        encoder = PROCESSES.Process(target=encode_slowly, args=(scene, path, theirs))
        encoder.start()
        if number % 4:  # else it is killed before the first tile, or even before there is a store
            assert ours.poll(60)
        time.sleep(moments.uniform(0, 4 * PAUSE_S))
        encoder.kill()
        encoder.join()
        assert encoder.exitcode == -signal.SIGKILL  # it was still at work
        if not path.exists():
            continue
        store = FeatureStore.open(path)
        wanted = sum(len(grid) for grid in store.grids if grid.scale >= 1)
        done.append(wanted - sum(len(store.missing(s)) for s in store.scales if s >= 1))
    assert len(done) >= KILLS * 3 / 4
    assert done == sorted(done)  # no kill undoes what was done
    assert 0 < done[-1] < wanted
    rest = FloodModel(64)
    store = encode(rest, scene, path)
    assert rest.encoded < sum(status == "done" for status, *_ in tiles_of(whole).values())
    assert tiles_of(store) == tiles_of(whole)
    assert store.verify() == []


DAMAGES = [("features", flip), ("valid", flip), ("features", Path.unlink)]


@pytest.mark.parametrize(("kind", "damage"), DAMAGES)
def test_a_damaged_tile_is_named_refused_and_repaired(tmp_path, kind, damage):
    path = write_raster(tmp_path / "a.tif", discs((300, 300), (100, 100, 20), (250, 250, 20)))
    model = FloodModel()
    store = encode(model, path, tmp_path / "f.zarr", scales=[1])
    asked, other = clicks(path, [(100, 100)]), clicks(path, [(250, 250)])
    before, untouched = tiles_of(store), segment(model, store, other, scales=[1])
    sound = segment(model, store, asked, scales=[1])
    tile = store.grid(1).locate((100.5,) * 4)
    damage(chunk_of(store, kind, tile))
    assert store.verify() == [tile]
    with pytest.raises(StoreDamaged, match=r"tile \(0, 0\) at scale 1 is damaged.*encode it again"):
        segment(model, store, asked, scales=[1])
    assert segment(model, store, other, scales=[1]).equals(untouched)
    encoded = model.encoded
    store.drop([tile])
    Scene.open(model, path, store=store.path).ensure([tile])
    assert model.encoded == encoded + 1
    assert store.verify() == []
    assert tiles_of(store) == before
    assert segment(model, store, asked, scales=[1]).equals(sound)
