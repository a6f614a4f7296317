import json
import signal
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from pyproj import CRS

from tiles import (
    FeatureStore,
    Frame,
    StoreDamaged,
    StoreIncomplete,
    StoreMismatch,
    TileGrid,
)

FRAME = Frame((20, 25), Affine(1, 0, 500_000, 0, -1, 4_100_000), CRS("EPSG:32610"))
FINE, COARSE = TileGrid(FRAME.shape, 8, 2), TileGrid(FRAME.shape, 8, 2, scale=4)
META = {"model": "nano", "bands": (1, 2, 3), "stretch": {"low": 0.5}}
SHAPE = (3, 2, 2)


def create(path):
    return FeatureStore.create(path, [COARSE, FINE], FRAME, SHAPE, META)


def features(seed=0):
    return np.random.default_rng(seed).normal(size=SHAPE).astype(np.float16)


def all_valid(tile):
    return np.ones(tile.shape, bool)


@pytest.fixture(params=["folder", "memory"])
def path(request, tmp_path):
    return tmp_path / "a.zarr" if request.param == "folder" else f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def store(path):
    return create(path)


@pytest.fixture
def local(tmp_path):
    return create(tmp_path / "a.zarr")


def chunk(store, kind, tile):
    row, col = tile.index
    zeros = ".0" * {"features": 3, "valid": 2}[kind]
    return Path(store.path, kind, f"{tile.scale:g}", f"c.{row}.{col}{zeros}")


def test_what_was_put_comes_back_from_a_store_opened_anew(path, store):
    tile, valid = FINE[1, 2], all_valid(FINE[1, 2])
    valid[3, 4] = False
    store.put(tile, features().astype(np.float32), valid)
    again = FeatureStore.open(path, writable=False)
    assert again[tile].dtype == np.float16
    assert (again[tile] == features()).all()
    assert (again.valid(tile) == valid).all()
    assert again.status(tile) == "done"


def test_it_knows_what_it_is_of(path, store):
    again = FeatureStore.open(path)
    assert again.frame == FRAME
    assert again.grids == (FINE, COARSE) and again.scales == (1, 4)
    assert again.grid(4) == COARSE
    assert again.feature_shape == SHAPE
    assert again.meta == store.meta == json.loads(json.dumps(META))
    with pytest.raises(StoreIncomplete, match=r"scale 2.*expected one of 1, 4"):
        again.grid(2)


def test_a_tile_that_is_not_there_is_missing(store):
    assert store.status(FINE[0, 0]) == "missing"
    for look in (store.__getitem__, store.valid):
        with pytest.raises(StoreIncomplete, match=r"tile \(0, 0\) at scale 1 is missing"):
            look(FINE[0, 0])


def test_an_empty_tile_is_not_missing_but_has_no_features(store):
    tile = FINE[0, 0]
    store.put(tile, None, ~all_valid(tile))
    assert store.status(tile) == "empty"
    assert not store.valid(tile).any()
    assert tile not in store.missing()
    with pytest.raises(StoreIncomplete, match="is empty"):
        store[tile]


def test_features_of_zeros_are_features(store):
    store.put(FINE[0, 0], np.zeros(SHAPE), all_valid(FINE[0, 0]))
    assert store.status(FINE[0, 0]) == "done"
    assert (store[FINE[0, 0]] == 0).all()


def test_missing_tiles_are_listed_in_order(store):
    everything = [*FINE, *COARSE]
    assert store.missing() == everything
    store.put(FINE[0, 1], features(), all_valid(FINE[0, 1]))
    store.put(COARSE[0, 0], features(), all_valid(COARSE[0, 0]))
    rest = [tile for tile in everything if tile not in (FINE[0, 1], COARSE[0, 0])]
    assert store.missing() == rest
    assert store.missing(4) == list(COARSE)[1:]


def test_a_tile_put_again_or_dropped(store):
    tile = FINE[2, 3]
    store.put(tile, features(1), all_valid(tile))
    store.put(tile, features(2), all_valid(tile))
    assert (store[tile] == features(2)).all()
    store.put(tile, None, ~all_valid(tile))
    assert store.status(tile) == "empty" and store.verify() == []
    store.put(tile, features(3), all_valid(tile))
    store.drop([tile, FINE[0, 0]])
    assert store.status(tile) == "missing" and store.missing() == [*FINE, *COARSE]


def test_a_tile_put_again_is_never_missing_meanwhile(local):
    tile = FINE[2, 3]
    local.put(tile, features(0), all_valid(tile))
    again = threading.Thread(
        target=lambda: [local.put(tile, features(n % 2), all_valid(tile)) for n in range(100)]
    )
    again.start()
    seen = 0
    while again.is_alive():
        read = local[tile]
        assert (read == features(0)).all() or (read == features(1)).all()
        seen += 1
    assert seen > 10


@pytest.mark.parametrize(
    ("values", "valid", "message"),
    [
        (None, np.ones((8, 8), bool), "no features and 64 valid"),
        (features(), np.zeros((8, 8), bool), "some features and 0 valid"),
        (features()[:1], np.ones((8, 8), bool), r"features \(1, 2, 2\)"),
        (features(), np.ones((8, 7), bool), r"validity bool \(8, 7\)"),
        (features(), np.ones((8, 8)), "validity float64"),
        (np.full(SHAPE, np.nan), np.ones((8, 8), bool), "not finite"),
        (np.full(SHAPE, 1e6), np.ones((8, 8), bool), "not finite"),
    ],
)
def test_what_is_no_tile_is_refused_and_leaves_nothing(local, values, valid, message):
    with pytest.raises(ValueError, match=message):
        local.put(FINE[0, 0], values, valid)
    assert local.status(FINE[0, 0]) == "missing" and local.verify() == []


def test_a_tile_of_another_grid_is_refused(local):
    with pytest.raises(ValueError, match="of another grid"):
        local.status(TileGrid(FRAME.shape, 8, 2, anchor=(1, 0))[0, 3])


def test_a_store_opened_to_read_is_not_written(path, store):
    reader = FeatureStore.open(path, writable=False)
    with pytest.raises(ValueError, match="opened to read"):
        reader.put(FINE[0, 0], features(), all_valid(FINE[0, 0]))
    with pytest.raises(ValueError, match="opened to read"):
        reader.drop([FINE[0, 0]])


def test_it_is_compared_with_what_is_expected(path, store):
    assert FeatureStore.open(path, expect=META).meta
    assert FeatureStore.open(path, expect={"model": "nano"}).meta
    for expect, message in [
        ({"model": "vit_b"}, 'model is "nano" .expected "vit_b"'),
        ({"stretch": {"low": 1}}, "stretch is"),
        ({"extra": 1}, "extra is not there"),
    ]:
        with pytest.raises(StoreMismatch, match=message):
            FeatureStore.open(path, expect=expect)


def test_what_exists_is_never_overwritten(path, store):
    store.put(FINE[0, 0], features(), all_valid(FINE[0, 0]))
    with pytest.raises(StoreMismatch, match="exists already"):
        create(path)
    assert store.status(FINE[0, 0]) == "done"


def test_of_many_creators_one_wins(tmp_path):
    def outcome(_):
        try:
            create(tmp_path / "a.zarr")
        except StoreMismatch:
            return "lost"
        return "won"

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(outcome, range(8))) == ["lost"] * 7 + ["won"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zarr"]
    assert FeatureStore.open(tmp_path / "a.zarr").missing() == [*FINE, *COARSE]


def test_what_is_no_store_is_refused(tmp_path, local):
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreMismatch, match="no such folder"):
        FeatureStore.open(tmp_path / "nothing")
    with pytest.raises(StoreMismatch, match="no Zarr group"):
        FeatureStore.open(tmp_path / "folder")
    with pytest.raises(StoreMismatch, match="no Zarr group"):
        FeatureStore.open(f"memory://{uuid.uuid4().hex}")
    assert not (tmp_path / "nothing").exists()
    about = tmp_path / "a.zarr" / "zarr.json"
    text = about.read_text()
    about.write_text(text.replace('"geosam-features"', '"something"'))
    with pytest.raises(StoreMismatch, match="format 'something'"):
        FeatureStore.open(local.path)
    for version, cure in ((3, "upgrade"), (1, "delete it and encode again")):
        about.write_text(text.replace('"version": 2', f'"version": {version}'))
        with pytest.raises(StoreMismatch, match=cure):
            FeatureStore.open(local.path)
    about.write_text("{")
    with pytest.raises(StoreMismatch, match="no Zarr group"):
        FeatureStore.open(local.path)
    about.write_text(text)
    Path(local.path, "valid").rename(tmp_path / "elsewhere")
    with pytest.raises(StoreDamaged, match="valid/1 cannot be opened"):
        FeatureStore.open(local.path)


@pytest.mark.parametrize(
    ("grids", "meta", "message"),
    [
        ([], {}, "at least one"),
        ([FINE, TileGrid(FRAME.shape, 16, 0)], {}, "all different"),
        ([TileGrid((20, 26))], {}, "the frame's"),
        ([FINE], {"x": object()}, "JSON"),
        ([FINE], {"x": float("nan")}, "JSON"),
    ],
)
def test_a_store_that_cannot_be_is_refused(tmp_path, grids, meta, message):
    with pytest.raises(ValueError, match=message):
        FeatureStore.create(tmp_path / "a.zarr", grids, FRAME, SHAPE, meta)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["features", "valid"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_damaged_bytes_are_found(local, kind, damage):
    tile, other = FINE[0, 0], FINE[0, 1]
    for seed, put in enumerate([tile, other]):
        local.put(put, features(seed), all_valid(put))
    assert local.verify() == []
    file = chunk(local, kind, tile)
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    file.write_bytes({"flip": content, "cut": content[:-3], "empty": b""}[damage])
    with pytest.raises(StoreDamaged, match=r"tile \(0, 0\) at scale 1 is damaged"):
        local[tile]
    assert local.verify() == [tile]
    local.drop(local.verify())
    assert local.verify() == [] and tile in local.missing()


def test_every_flipped_bit_is_found(local):
    tile = FINE[0, 0]
    local.put(tile, features(), all_valid(tile))
    file = chunk(local, "features", tile)
    content = file.read_bytes()
    for position in range(len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 8
        file.write_bytes(flipped)
        with pytest.raises(StoreDamaged):
            local[tile]


def test_half_a_tile_is_found(local):
    lost, half = FINE[0, 0], FINE[0, 1]
    for tile in (lost, half):
        local.put(tile, features(), all_valid(tile))
    chunk(local, "features", lost).unlink()
    chunk(local, "valid", half).unlink()
    with pytest.raises(StoreDamaged, match="features are gone"):
        local[lost]
    assert half in local.missing()
    assert local.verify() == [lost, half]


def test_progress_is_told_and_may_cancel(local):
    for tile in list(FINE)[:3]:
        local.put(tile, features(), all_valid(tile))
    told = []
    local.verify(lambda *progress: told.append(progress))
    assert told == [(1, 3), (2, 3), (3, 3)]

    def cancel(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        local.verify(cancel)


WRITER = """
import sys
import numpy as np
from tiles import FeatureStore

store = FeatureStore.open(sys.argv[1])
print("ready", flush=True)
while True:
    for number, tile in enumerate(store.grids[0]):
        features = np.full(store.feature_shape, number)
        store.put(tile, features, np.ones(tile.shape, bool))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_writer_leaves_no_tile_that_only_looks_whole(tmp_path):
    grid = TileGrid(FRAME.shape, 8, 2)
    store = FeatureStore.create(tmp_path / "a.zarr", [grid], FRAME, (64, 32, 32), {})
    for delay in (0.005, 0.02, 0.05):
        command = [sys.executable, "-c", WRITER, store.path]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout.readline() == b"ready\n"
            time.sleep(delay)
            writer.kill()
        for number, tile in enumerate(grid):
            if store.status(tile) != "missing":
                assert (store[tile] == number).all() and store.valid(tile).all()
        assert set(store.verify()) <= set(store.missing())
    store.drop(store.verify())
    assert store.verify() == []
