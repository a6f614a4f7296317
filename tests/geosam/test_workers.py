"""Work over the workers of a real dask cluster: the result of one process, whatever dies."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import dask
import fsspec
import numpy as np
import pandas
import pytest
from distributed import Client, LocalCluster
from safetensors.numpy import load_file, save_file

import geosam
from geosam import workers
from geosam.errors import ClusterError, ModelError
from geosam.prompts import PromptSet
from geosam.scene import Scene
from geosam.workers import connected, share, spread
from tests.fakes import FloodModel, discs, tiles_of, write_raster
from tests.geosam.test_recipes_from_the_field import spoil_block
from tests.geosam.test_verbs import clicks
from tiles import FeatureStore, RasterError

PLACES = ((60, 48, 15), (40, 112, 12), (112, 112, 14), (104, 200, 40))
DENSITY = 12


class Telling(FloodModel):
    """Writes a letter for each image that it encodes, wherever it does so, and takes its time."""

    def __init__(self, log, pause_s=0.0):
        super().__init__()
        self.log, self.pause_s = log, pause_s

    def encode(self, images):
        time.sleep(self.pause_s)
        with self.log.open("a") as file:
            file.write("x" * len(images))
        return super().encode(images)


class Deadly(FloodModel):
    def encode(self, images):
        os._exit(1)


@pytest.fixture(scope="module")
def client():
    """A client of a cluster of two processes."""
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture
def pair(tmp_path):
    """The same raster twice, each with room for a store beside it."""
    image = discs((216, 290), *PLACES)
    image[:60, 150:] = 0
    return [write_raster(tmp_path / f"{name}.tif", image, nodata=0) for name in "ab"]


class Killer:
    """A progress hook that kills a worker's process when some work is done."""

    def __init__(self, client, after):
        self.pids, self.after, self.killed = client.run(os.getpid), after, None

    def __call__(self, done, total):
        if self.killed is None and done >= self.after:
            assert done < total
            self.killed = min(self.pids.values())
            os.kill(self.killed, signal.SIGKILL)


def test_encoding_is_spread_and_gives_the_same_store(client, pair, tmp_path):
    model, told = Telling(tmp_path / "log"), []
    spread_out = geosam.encode(
        model, pair[0], client=client, progress=lambda *now: told.append(now)
    )
    assert model.encoded == 0
    here = FloodModel()
    local = geosam.encode(here, pair[1])
    assert tiles_of(spread_out) == tiles_of(local)
    assert spread_out.verify() == []
    assert len(model.log.read_text()) == here.encoded
    assert told == [(n + 1, len(told)) for n in range(len(told))]


def test_segmenting_is_spread_and_gives_the_same_polygons(client, pair):
    model = FloodModel()
    points = clicks(pair[0], [place[:2] for place in PLACES] * 3)
    several = PromptSet.of(
        points=[(516_096 + 48.5, 5_160_960 - 60.5)],
        boxes=[(516_250, 5_160_810, 516_350, 5_160_900)],
    )
    for asked in (points, several):
        ours = geosam.segment(model, pair[0], asked, client=client)
        assert ours.equals(geosam.segment(FloodModel(), pair[1], asked))
        assert set(ours["status"]) == {"ok"}
    ours = geosam.segment(model, pair[0], points, centred=True, client=client)
    assert ours.equals(geosam.segment(FloodModel(), pair[1], points, centred=True))
    assert model.encoded == 0


@pytest.mark.parametrize("centred", [False, True])
def test_all_ground_is_shared_out_the_same_way(client, pair, centred):
    model, options = FloodModel(), {"density": DENSITY, "coverage": True, "centred": centred}
    ours, theirs = (
        pandas.concat(geosam.everything(own, path, client=over, **options))
        for own, path, over in ((model, pair[0], client), (FloodModel(), pair[1], None))
    )
    assert model.encoded == 0
    assert len(ours) >= len(PLACES)
    assert ours.equals(theirs)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_worker_that_is_killed_costs_what_it_held(client, pair, tmp_path):
    model = Telling(tmp_path / "log", pause_s=0.05)
    killer = Killer(client, after=6)
    store = geosam.encode(model, pair[0], scales=[0.5, 1, 2], client=client, progress=killer)
    assert killer.killed is not None
    here = FloodModel()
    assert tiles_of(store) == tiles_of(geosam.encode(here, pair[1], scales=[0.5, 1, 2]))
    assert here.encoded <= len(model.log.read_text()) <= here.encoded + 2 * model.batch
    killer = Killer(client, after=3)
    ours = pandas.concat(
        geosam.everything(model, pair[0], density=DENSITY, client=client, progress=killer)
    )
    assert killer.killed is not None
    assert ours.equals(pandas.concat(geosam.everything(here, pair[1], density=DENSITY)))


@pytest.mark.slow
def test_work_that_kills_every_worker_is_given_up(pair):
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
        pytest.raises(ClusterError, match=r"one piece of work ended several workers.*their logs"),
    ):
        geosam.encode(Deadly(), pair[0], client=client)


def test_a_cluster_without_workers_is_not_waited_for_for_ever(pair, monkeypatch):
    monkeypatch.setattr(workers, "PATIENCE_S", 0.5)
    with (
        LocalCluster(n_workers=0, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
        pytest.raises(ClusterError, match=r"^Cluster tcp:.*: no worker is left .*ask for the same"),
    ):
        geosam.encode(FloodModel(), pair[0], client=client)


def test_a_loaded_model_is_loaded_again_by_the_workers(client, pair, tmp_path):
    import torch  # not above: workers import this module

    weights = load_file(Path(geosam.__file__).with_name("model") / "nano.safetensors")
    path = tmp_path / "own.safetensors"
    save_file(weights, path)
    model = geosam.load_model(path)
    asked = clicks(pair[0], [PLACES[0][:2]])
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as dask has it in workers; the order of sums depends on it
    try:
        ours = geosam.segment(model, pair[0], asked, client=client)
        assert ours.equals(geosam.segment(model, pair[1], asked))
    finally:
        torch.set_num_threads(before)
    weights[max(weights)] += 1
    save_file(weights, path)
    with pytest.raises(
        ClusterError, match=r"^Worker tcp://.*under one name.*: other weights \(expected own-"
    ):
        geosam.encode(model, pair[0], tmp_path / "b.zarr", client=client)
    unnamed = type(model)(model.network, "own-0")
    with pytest.raises(ModelError, match=r"own-0: made in memory \(expected one from load_model\)"):
        geosam.encode(unnamed, pair[1], tmp_path / "c.zarr", client=client)


def test_workers_that_do_not_see_the_store_or_are_older_are_refused(client, pair, monkeypatch):
    with pytest.raises(ClusterError, match=r"^Worker tcp:.*under one name.*memory://unseen"):
        geosam.encode(FloodModel(), pair[0], "memory://unseen.zarr", client=client)
    apart = "memory://apart.zarr"
    client.run(geosam.encode, FloodModel(), pair[0], apart, scales=[4])
    with pytest.raises(ClusterError, match=r"apart.zarr: tile .* is not here .*under one name"):
        geosam.encode(FloodModel(), pair[0], apart, client=client)
    scene = Scene.open(FloodModel(), pair[1], client=client)
    write_raster(pair[1], np.zeros((216, 290), np.uint8))
    with pytest.raises(ClusterError, match=r"What failed there: .*b\.tif: fingerprint"):
        scene.ensure(scene.store.grid(2))
    monkeypatch.setattr(workers, "__version__", "9.9")
    with pytest.raises(ClusterError, match=rf"geosam {geosam.__version__} \(expected geosam 9.9\)"):
        geosam.encode(FloodModel(), pair[0], client=client)
    fsspec.filesystem("memory").rm("/", recursive=True)


def test_an_error_of_the_work_is_the_same_as_in_one_process(client, tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (1200, 1200), np.uint8)
    blocks = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    path = write_raster(tmp_path / "a.tif", image, **blocks)
    spoil_block(path, 3, 3)
    said, stores = [], [tmp_path / "a.zarr", tmp_path / "b.zarr"]
    for over, store in zip((client, None), stores, strict=True):
        with pytest.raises(
            RasterError, match=r"^tile .*unreadable.* So are \d other tiles"
        ) as error:
            geosam.encode(FloodModel(), path, store, scales=[1], client=over)
        said.append(str(error.value))
    assert said[0] == said[1]
    one, two = map(FeatureStore.open, stores)
    assert tiles_of(one) == tiles_of(two)


def test_shares_are_small_enough_to_go_round(client):
    assert share(1000, None) == 1000 and share(0, None) == 1
    assert share(1000, client) == 16  # what a worker takes with it
    assert share(40, client) == 5  # two workers take four each
    assert share(3, client) == share(0, client) == 1


def test_pieces_are_asked_for_as_they_are_needed(client, pair):
    scene = Scene.open(FloodModel(), pair[0])
    taken = []

    def pieces():
        for number in range(1000):
            taken.append(number)
            yield [number]

    results = spread(_echo, scene, pieces(), client)
    assert [next(results) for _ in range(10)] == list(range(10))
    assert len(taken) <= workers.AHEAD + 10
    results.close()


def _echo(scene, items):
    return items


def test_a_cluster_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(workers, "CONNECT_S", 0.5)
    with connected(None) as nothing:
        assert nothing is None
    for url, found in (("tcp://127.0.0.1:1", "Timed out"), ("here", "port")):
        with (
            pytest.raises(ClusterError, match=rf"^Cluster {url}: .*{found}.*dask scheduler"),
            connected(url),
        ):
            pass
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(ClusterError, match=r"pip install geosam-toolkit\[dask\]"),
        connected("tcp://127.0.0.1:1"),
    ):
        pass


def test_geosam_does_not_load_dask_unasked():
    code = (
        "import sys, geosam.cli, geosam.scene, geosam.automatic.run; "
        "assert not {'dask', 'distributed'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_lost_scheduler_leaves_a_store_that_resumes(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (3, 1100, 1100), np.uint8)
    raster, told = write_raster(tmp_path / "a.tif", noise), tmp_path / "scheduler.json"
    python = [sys.executable, "-m"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with ExitStack() as stack:

        def start(*words, **options):
            process = stack.enter_context(subprocess.Popen([*python, *words], **options))
            stack.callback(process.kill)
            return process

        scheduler = start(
            "distributed.cli.dask_scheduler", "--port", "0", "--host", "127.0.0.1",
            "--no-dashboard", "--scheduler-file", told, **quiet,
        )  # fmt: skip
        for _ in range(600):
            if told.exists():
                break
            time.sleep(0.1)
        url = json.loads(told.read_text())["address"]
        start(
            "distributed.cli.dask_worker", url, "--nthreads", "1", "--no-nanny", "--no-dashboard",
            "--death-timeout", "1", **quiet,
        )  # fmt: skip
        asker = start(
            "geosam", "--progress-lines", "encode", raster, "--dask", url,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        lines = iter(asker.stderr)
        assert any(line.startswith("progress") for line in lines)  # reads on until one is
        scheduler.kill()
        (said,) = [line for line in lines if line.startswith("Error:")]
        assert f"Cluster {url}: its scheduler is gone" in said and "ask for the same again" in said
        assert asker.wait(60) == 1
    (path,) = tmp_path.glob("*.zarr")
    store = FeatureStore.open(path)
    left = [tile for scale in store.scales if scale >= 1 for tile in store.missing(scale)]
    assert left and store.verify() == []
    steps = []
    store = geosam.encode(geosam.load_model(), raster, progress=lambda *now: steps.append(now))
    assert len(steps) == len(left)
    assert not [tile for scale in store.scales if scale >= 1 for tile in store.missing(scale)]
