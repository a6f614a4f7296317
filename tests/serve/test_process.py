"""The server as other programs start it: a real process with the embedded model."""

import json
import subprocess
import sys
import time
from importlib.resources import files

import pytest
import rasterio

COMMAND = [sys.executable, "-m", "geosam", "serve", "--stdio"]


@pytest.fixture
def process():
    with subprocess.Popen(
        COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as made:
        yield made
        made.kill()


def ask(process, op, **given):
    process.stdin.write(json.dumps({"id": op, "op": op, **given}).encode() + b"\n")
    process.stdin.flush()
    while True:
        message = json.loads(process.stdout.readline())
        if "event" not in message:
            return message["ok"]


def test_from_hello_to_an_outline_and_an_orderly_end(process, tmp_path):
    assert ask(process, "hello", protocol=1)["pid"] == process.pid
    facts = ask(process, "self_test")
    assert facts["model"].startswith("nano-") and facts["iou"] > 0.9
    image = str(files("geosam") / "demo" / "OSBS_029.tif")
    scene = ask(process, "open", raster=image, store=str(tmp_path / "f.zarr"))["scene"]
    with rasterio.open(image) as file:
        x, y = file.xy(200, 200)
    prompt = {"id": "tree", "points": [[x, y]]}
    (shown,) = ask(process, "preview", scene=scene, prompt=prompt, encode=True)["polygons"]
    (polygon,) = ask(process, "segment", scene=scene, prompts=[prompt])["polygons"]
    assert polygon["geometry"] == shown["geometry"] and polygon["score"] > 0
    process.stdin.close()
    assert process.wait(5) == 0
    assert process.stdout.read() == b""  # nothing but answers ever came that way


def test_it_ends_with_its_client_even_in_the_middle_of_work(process, tmp_path):
    image = str(files("geosam") / "demo" / "OSBS_029.tif")
    scene = ask(process, "open", raster=image, store=str(tmp_path / "f.zarr"))["scene"]
    process.stdin.write(b'{"id": 1, "op": "encode", "scene": "%s"}\n' % scene.encode())
    began = time.monotonic()
    process.stdin.close()
    process.wait(10)
    assert time.monotonic() - began < 5
