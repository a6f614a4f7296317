"""Rasters on the web and feature stores in S3, from the raster to every object."""

import os
import subprocess
import sys

import boto3
import numpy as np
import pandas
import pytest
import rasterio.shutil
from distributed import Client, LocalCluster
from moto.server import ThreadedMotoServer

import geosam
from geosam.scene import Scene
from tests.fakes import FloodModel, discs, tiles_of, write_raster
from tests.geosam.test_verbs import clicks
from tests.web import forbidding, served
from tiles import FeatureStore, StoreMismatch, StoreUnreachable, StoreUnwritable

PLACES = ((60, 48, 15), (40, 112, 12), (112, 112, 14), (104, 200, 40))


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """The URL of a bucket in an S3 of this process."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1", "no_proxy": host,
            "GEOSAM_CACHE": str(tmp_path_factory.mktemp("cache")),
        }.items():  # fmt: skip
            environment.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="maps")
        yield "s3://maps"
    server.stop()


def test_a_store_in_s3_serves_every_verb_and_resumes(bucket, tmp_path):
    path = write_raster(tmp_path / "a.tif", discs((216, 264), *PLACES))
    url = f"{bucket}/deep/a.zarr"
    model = FloodModel()
    asked = clicks(path, [place[:2] for place in PLACES])
    geosam.encode(model, path, url, scales=[2])
    first = model.encoded
    store = geosam.encode(model, path, url, scales=[1, 2])
    local = geosam.encode(FloodModel(), path, tmp_path / "a.zarr", scales=[1, 2])
    assert model.encoded == first + len(store.grid(1))
    assert tiles_of(store) == tiles_of(local)
    assert store.verify() == []
    for source, own in ((url, tmp_path / "a.zarr"), (path, None)):
        ours = geosam.segment(model, source, asked, store=None if own else url)
        assert ours.equals(geosam.segment(model, own or path, asked))
    before = model.encoded
    found, expected = (
        pandas.concat(geosam.everything(model, source, density=8)) for source in (url, local)
    )
    assert model.encoded == before
    assert len(found) >= len(PLACES) and found.equals(expected)
    tile = store.grid(1)[0, 0]
    store.drop([tile])
    assert FeatureStore.open(url).missing(1) == [tile]
    Scene.open(model, path, store=url).ensure([tile])
    assert tiles_of(FeatureStore.open(url)) == tiles_of(store)


def test_what_s3_lacks_is_said(bucket, tmp_path):
    path = write_raster(tmp_path / "a.tif", discs((100, 100)))
    with pytest.raises(StoreMismatch, match=r"s3://maps/none\.zarr: no Zarr group"):
        FeatureStore.open(f"{bucket}/none.zarr")
    with pytest.raises(StoreUnwritable, match=r"s3://elsewhere/a\.zarr: .*bucket does not exist"):
        geosam.encode(FloodModel(), path, "s3://elsewhere/a.zarr")
    with pytest.raises(StoreMismatch, match=r"nowhere://a\.zarr: .*not known"):
        geosam.encode(FloodModel(), path, "nowhere://a.zarr")
    with pytest.raises(
        StoreMismatch, match=r"gs://maps/a\.zarr: .*install gcsfs.*pip install s3fs"
    ):
        geosam.encode(FloodModel(), path, "gs://maps/a.zarr")


NO_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_CONFIG_FILE": "none",
    "AWS_SHARED_CREDENTIALS_FILE": "none", "AWS_EC2_METADATA_DISABLED": "true",
}  # fmt: skip
NO_NETWORK = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
ITEM = "from tiles import Raster; Raster.open('s3://maps/item.json')"


@pytest.mark.parametrize(
    ("words", "environment", "found"),
    [
        (("encode", "a.tif", "-o"), NO_CREDENTIALS, "NoCredentialsError: Unable to locate cred"),
        (("check",), NO_CREDENTIALS, "NoCredentialsError: Unable to locate credentials"),
        (("check",), NO_NETWORK, "EndpointConnectionError: Could not connect"),
        (("check",), None, "PermissionError: Forbidden"),
    ],
)
def test_an_s3_that_does_not_answer_is_one_message(bucket, tmp_path, words, environment, found):
    write_raster(tmp_path / "a.tif", discs((100, 100)))
    url = f"{bucket}/own.zarr"
    with forbidding() as address:
        about = os.environ | (environment or {"AWS_ENDPOINT_URL": address})
        result = subprocess.run(
            [sys.executable, "-m", "geosam", *words, url],
            capture_output=True, text=True, cwd=tmp_path, check=False,
            env=about | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
    assert result.returncode == 1
    said, *more = [line for line in result.stderr.splitlines() if "lient" not in line]
    assert said.startswith(f"Error: Feature store {url}: {found}") and not more
    assert "FSSPEC_S3_ANON=true" in said


def test_an_item_in_an_s3_that_does_not_answer_is_no_raster(bucket):
    result = subprocess.run(
        [sys.executable, "-c", ITEM], capture_output=True, text=True, check=False,
        env=os.environ | NO_CREDENTIALS | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert "RasterError: STAC item s3://maps/item.json: Unable to locate" in result.stderr


def test_a_store_says_when_its_s3_goes_away(tmp_path, monkeypatch):
    path = write_raster(tmp_path / "a.tif", discs((100, 100)))
    store = geosam.encode(FloodModel(), path, "memory://maps/a.zarr", scales=[1])
    tile = store.grid(1)[0, 0]

    async def lost(*_, **__):
        raise TimeoutError("no route")

    own = store._valid[1]._store
    for name in ("_cat_file", "_exists", "_ls", "_rm"):
        monkeypatch.setattr(own.fs, name, lost)
    for ask in (lambda: store[tile], lambda: store.missing(1), lambda: store.drop([tile])):
        with pytest.raises(StoreUnreachable, match="TimeoutError: no route"):
            ask()


@pytest.mark.slow
def test_workers_meet_in_s3(bucket, tmp_path):
    path = write_raster(tmp_path / "a.tif", discs((216, 264), *PLACES))
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        model = FloodModel()
        found = pandas.concat(
            geosam.everything(model, path, store=f"{bucket}/b.zarr", density=8, client=client)
        )
    assert model.encoded == 0
    assert found.equals(pandas.concat(geosam.everything(model, path, density=8)))


def test_a_click_on_a_remote_raster_costs_a_fraction_of_it(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("GDAL_DISABLE_READDIR_ON_OPEN", "EMPTY_DIR")  # or GDAL asks under the GIL
    monkeypatch.setenv("GEOSAM_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "web"
    folder.mkdir()
    image = np.full((8192, 8192), 20, np.uint8)
    image[3000:3040, 5000:5030] = 200
    plain = write_raster(tmp_path / "plain.tif", image)
    rasterio.shutil.copy(plain, folder / "a.tif", driver="COG", blocksize=256, compress="none")
    asked = clicks(plain, [(3020, 5010)])
    with served(folder) as (url, sent):
        (polygon,) = geosam.segment(FloodModel(), f"{url}/a.tif", asked).geometry
    assert polygon.area == pytest.approx(40 * 30, rel=0.01)
    assert 0 < sum(sent) < (folder / "a.tif").stat().st_size / 12
