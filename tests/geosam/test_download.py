"""Fetching weights from a server that behaves, breaks off, lies, or is not there."""

import hashlib
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from filelock import FileLock

from geosam import download
from geosam.cache import cache_folder
from geosam.download import pull
from geosam.errors import DownloadError, ModelError
from geosam.registry import PUBLISHED, WeightsFile, names, published, state

DATA = np.random.default_rng(0).bytes(300_000)


class Server:
    """Serves `data` at every path.

    Attributes:
        data: what it has.
        ranges: whether it goes on from where it is asked to.
        cuts: of the next answers, after how many bytes the connection ends.
        status: an error it answers with, `times` times.
        seen: Range header of each request.
    """

    def __init__(self):
        self.data, self.ranges, self.cuts = DATA, True, deque()
        self.status, self.times, self.seen = None, 0, []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def answer(self, handler):
        self.seen.append(handler.headers["Range"])
        if self.status and self.times:
            self.times -= 1
            handler.send_error(self.status)
            return
        begin = int(handler.headers["Range"][6:].rstrip("-")) if self.ranges else 0
        body = self.data[begin:]
        handler.send_response(206 if self.ranges else 200)
        if self.ranges:
            end = len(self.data)
            handler.send_header("Content-Range", f"bytes {begin}-{end - 1}/{end}")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: self.cuts.popleft()] if self.cuts else body)


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    monkeypatch.setenv("GEOSAM_CACHE", str(tmp_path / "cache"))
    for name in ("GEOSAM_MIRROR", "GEOSAM_OFFLINE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "PAUSE_S", 0.0)


@pytest.fixture
def file(server):
    digest = hashlib.sha256(DATA).hexdigest()
    return WeightsFile("tiny", f"{server.url}/sam/tiny.pth", len(DATA), digest, "MIT", 256)


def part_of(file):
    return file.path.with_name("tiny.pth.part")


def test_a_file_is_fetched_once(server, file):
    steps = []
    path = pull(file, progress=lambda done, total: steps.append((done, total)))
    assert path == file.path == cache_folder() / "tiny.pth"
    assert path.read_bytes() == DATA
    assert steps[-1] == (len(DATA), len(DATA))
    assert not part_of(file).exists()
    pull(file)
    assert server.seen == ["bytes=0-"]


def test_broken_connections_are_gone_on_with(server, file):
    server.cuts.extend([100_000, 50_000, 0, 1])
    assert pull(file).read_bytes() == DATA
    assert server.seen == [f"bytes={n}-" for n in (0, 100_000, 150_000, 150_000, 150_001)]


def test_a_killed_fetch_is_gone_on_with_the_next_time(server, file):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(file, progress=stop)
    kept = part_of(file).stat().st_size
    assert 0 < kept <= len(DATA)
    part_of(file).write_bytes(DATA[:1000])
    assert state(file) == "absent"
    assert pull(file).read_bytes() == DATA
    assert server.seen[-1] == "bytes=1000-"


def test_who_waits_for_another_process_says_so(server, file, caplog):
    lock = part_of(file).with_suffix(".lock")
    lock.parent.mkdir(parents=True)
    said = threading.Event()
    caplog.handler.addFilter(lambda _: said.set() or True)
    with FileLock(lock, thread_local=False) as other, ThreadPoolExecutor() as pool:
        fetched = pool.submit(pull, file)
        assert said.wait(10)
        assert not fetched.done()
        assert server.seen == []
        other.release()
        assert fetched.result(10).read_bytes() == DATA
    assert [r.getMessage() for r in caplog.records] == [
        "tiny: another process fetches it; waiting for it"
    ]


def test_a_server_that_always_begins_anew_is_borne(server, file):
    server.ranges = False
    server.cuts.append(1000)
    assert pull(file).read_bytes() == DATA
    assert server.seen == ["bytes=0-", "bytes=1000-"]


def test_a_server_that_never_gets_further_is_given_up(server, file):
    server.cuts.extend([1000, 0, 0, 0, 0, 0])
    with pytest.raises(DownloadError, match=r"after 1000 of 300000 bytes.*Run the same line"):
        pull(file)
    assert part_of(file).read_bytes() == DATA[:1000]
    assert not file.path.exists()
    assert pull(file).read_bytes() == DATA


def test_another_file_of_the_same_size_is_refused_and_removed(server, file):
    server.data = DATA[:-1] + bytes([DATA[-1] ^ 1])
    with pytest.raises(DownloadError, match=rf"sha256 .* \(expected {file.sha256}\)"):
        pull(file)
    assert not list(cache_folder().iterdir())


@pytest.mark.parametrize("size", [1000, 300_001])
def test_a_file_of_another_size_is_refused_before_it_is_fetched(server, file, size):
    server.data = DATA[:1000] if size == 1000 else DATA + b"x"
    with pytest.raises(DownloadError, match=rf"{size} bytes \(expected 300000\)"):
        pull(file)
    assert not list(cache_folder().iterdir())


def test_a_range_that_was_not_asked_for_is_refused(server, file, monkeypatch):
    part_of(file).parent.mkdir()
    part_of(file).write_bytes(DATA[:1000])
    answer = server.answer

    def shifted(handler):
        handler.headers.replace_header("Range", "bytes=2000-")
        answer(handler)

    monkeypatch.setattr(server, "answer", shifted)
    with pytest.raises(DownloadError, match=r"sends bytes 2000-.*expected bytes 1000-"):
        pull(file)


def test_a_missing_file_is_said_to_be_missing(server, file):
    server.status, server.times = 404, 1
    with pytest.raises(DownloadError, match="answers 404 Not Found"):
        pull(file)
    assert len(server.seen) == 1


def test_a_server_in_trouble_is_asked_again(server, file):
    server.status, server.times = 503, 3
    assert pull(file).read_bytes() == DATA
    server.times = 99
    file.path.unlink()
    with pytest.raises(DownloadError, match="Service Unavailable after 0 of 300000 bytes"):
        pull(file)


def test_a_server_that_is_not_there(file, server):
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(DownloadError, match=r"refused.*check the network and HTTPS_PROXY"):
        pull(file)


def test_a_mirror_is_asked_instead(server, file, monkeypatch):
    away = WeightsFile(
        "tiny", "http://nowhere.invalid/tiny.pth", file.size, file.sha256, "MIT", 256
    )
    assert pull(away, mirror=f"{server.url}/mirror/").read_bytes() == DATA
    away.path.unlink()
    monkeypatch.setenv("GEOSAM_MIRROR", server.url)
    assert pull(away).read_bytes() == DATA
    away.path.unlink()
    with pytest.raises(DownloadError, match=r"file:///etc/tiny\.pth: no web address"):
        pull(away, mirror="file:///etc")


def test_offline_nothing_is_asked(server, file, monkeypatch):
    monkeypatch.setenv("GEOSAM_OFFLINE", "1")
    with pytest.raises(DownloadError, match="GEOSAM_OFFLINE is set"):
        pull(file)
    assert server.seen == []
    file.path.parent.mkdir()
    file.path.write_bytes(DATA)
    assert pull(file) == file.path


def test_a_full_disk_and_a_folder_in_the_way_are_named(file, monkeypatch, tmp_path):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _path: type("", (), {"free": 1000}))
    with pytest.raises(DownloadError, match=r"0 MB free.*GEOSAM_CACHE"):
        pull(file)
    (tmp_path / "taken").touch()
    monkeypatch.setenv("GEOSAM_CACHE", str(tmp_path / "taken"))
    with pytest.raises(DownloadError, match=r"taken: File exists.*GEOSAM_CACHE"):
        pull(file)


def test_a_damaged_file_is_noticed_and_fetched_again(server, file):
    assert state(file) == "absent"
    pull(file)
    assert state(file) == "ok"
    file.path.write_bytes(DATA[:-1])
    assert state(file) == "damaged"
    file.path.write_bytes(b"x" + DATA[1:])
    assert state(file) == "damaged"
    assert pull(file).read_bytes() == DATA


def test_the_cache_is_where_one_looks_for_it(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("GEOSAM_CACHE")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "geosam"


def test_the_registry_is_well_formed():
    sizes = ("tiny", "small", "base-plus", "large")
    assert list(PUBLISHED) == [
        *("sam-vit-b", "sam-vit-l", "sam-vit-h", "mobile-sam"),
        *(f"sam2.1-hiera-{size}" for size in sizes),
    ]
    for file in PUBLISHED.values():
        assert file.url.startswith((
            "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_",
            "https://dl.fbaipublicfiles.com/segment_anything_2/092824/sam2.1_hiera_",
            "https://github.com/ChaoningZhang/MobileSAM/raw/master/weights/mobile_sam.pt",
        ))  # fmt: skip
        assert file.filename.startswith(file.name.replace("-", "_"))
        assert len(bytes.fromhex(file.sha256)) == 32
    assert len({file.sha256 for file in PUBLISHED.values()}) == len(PUBLISHED)
    assert published("sam-vit-b").model_id == "sam_vit_b_01ec64-ec2df627"
    with pytest.raises(ModelError, match=r"'vit_x': no published weights.*sam-vit-b"):
        published("vit_x")
    assert names([]) == []
