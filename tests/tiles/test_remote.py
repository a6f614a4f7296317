"""A raster behind a web server: only the blocks that are needed travel."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import rasterio
from affine import Affine

from tiles import Raster, Window


@pytest.fixture
def served(tmp_path):
    """A tiled GeoTIFF of 2048 x 2048 px behind a server of byte ranges; its URL, data and tally."""
    data = np.random.default_rng(0).integers(0, 255, (3, 2048, 2048), np.uint8)
    path = tmp_path / "a.tif"
    profile = {
        "driver": "GTiff", "count": 3, "height": 2048, "width": 2048, "dtype": "uint8",
        "crs": "EPSG:32633", "transform": Affine(1, 0, 500_000, 0, -1, 5_000_000),
        "tiled": True, "blockxsize": 256, "blockysize": 256,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        file.write(data)
    content, sent = path.read_bytes(), []

    class Ranges(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Accept-Ranges", "bytes")
            self.end_headers()

        def do_GET(self):
            asked = self.headers.get("Range", f"bytes=0-{len(content) - 1}")
            first, last = (int(n) for n in asked.removeprefix("bytes=").split("-"))
            part = content[first : last + 1]
            sent.append(len(part))
            self.send_response(206)
            self.send_header("Content-Length", str(len(part)))
            end = first + len(part) - 1
            self.send_header("Content-Range", f"bytes {first}-{end}/{len(content)}")
            self.end_headers()
            self.wfile.write(part)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Ranges)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/a.tif", data, sent
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("prefix", ["", "/vsicurl/"])
def test_a_window_of_a_remote_raster_costs_a_fraction_of_it(served, prefix, monkeypatch):
    url, data, sent = served
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("GDAL_DISABLE_READDIR_ON_OPEN", "EMPTY_DIR")
    with Raster.open(prefix + url) as raster:
        chip = raster.read(Window(700, 900, 300, 200))
    assert (chip.data == data[:, 900:1100, 700:1000]).all()
    assert 0 < sum(sent) < data.nbytes / 4
