"""Encoding: the three stages work at the same time, and what is running is bounded."""

import threading

import pytest

from geosam.encoding import READ_AHEAD
from geosam.verbs import encode
from tests.fakes import FloodModel, discs, write_raster
from tiles import FeatureStore, Raster

WAIT_S = 20
BATCH = FloodModel().batch


@pytest.fixture
def path(tmp_path):
    return write_raster(tmp_path / "a.tif", discs((600, 640), (100, 100, 30)))


def test_reading_and_writing_go_on_while_a_batch_is_encoded(path, monkeypatch):
    reads, writes = [], []
    read_more, wrote_first = threading.Event(), threading.Event()
    read, put = Raster.read, FeatureStore.put

    def reading(self, *args):
        if len(args) == 3:  # a tile, not a block for the fingerprint
            reads.append(args)
        if len(reads) > BATCH:
            read_more.set()
        return read(self, *args)

    def writing(self, *args):
        put(self, *args)
        writes.append(args)
        wrote_first.set()

    class Slow(FloodModel):
        def encode(self, images):
            if self.encoded == 0:
                assert read_more.wait(WAIT_S)  # the next batch is read meanwhile
            else:
                assert wrote_first.wait(WAIT_S)  # the batch before is written meanwhile
            return super().encode(images)

    monkeypatch.setattr(FeatureStore, "put", writing)
    model = Slow()
    monkeypatch.setattr(Raster, "read", reading)
    encode(model, path, scales=[1])
    assert model.encoded == len(writes) == 42


def test_reading_never_runs_far_ahead(path, monkeypatch):
    read = Raster.read
    ahead, most = 0, 0

    def reading(self, *args):
        nonlocal ahead, most
        ahead += len(args) == 3  # a tile, not a block for the fingerprint
        most = max(most, ahead)
        return read(self, *args)

    class Counting(FloodModel):
        def encode(self, images):
            nonlocal ahead
            ahead -= len(images)
            return super().encode(images)

    store = encode(FloodModel(), path, scales=[4])
    monkeypatch.setattr(Raster, "read", reading)
    encode(Counting(), path, store.path, scales=[1])
    assert BATCH < most <= READ_AHEAD + 2 * BATCH
