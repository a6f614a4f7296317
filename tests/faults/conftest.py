"""What fault tests share, and their tally."""

import hashlib
import re
import shutil
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from geosam.registry import WeightsFile
from tests.faults.verbs import VERBS, WEIGHTS, Ground, made, make_inputs, occupied
from tests.geosam.test_download import Server

DISK_BYTES = 64 << 20
ORDER = list(VERBS)


@pytest.fixture(scope="session")
def ground(tmp_path_factory) -> Iterator[Ground]:
    scratch = tmp_path_factory.mktemp("faults")
    make_inputs(scratch / "inputs")
    server = Server()
    server.data = WEIGHTS
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    file = WeightsFile("tiny", f"{server.url}/tiny.pth", len(WEIGHTS), digest, "MIT", 256)
    yield Ground(scratch / "inputs", scratch, file)
    server.http.shutdown()
    server.http.server_close()
    thread.join()


@pytest.fixture
def undisturbed(ground, verb):
    """What a verb makes if nothing befalls it."""
    if verb not in ground.known:
        folder = ground.folder()
        before = occupied(folder)
        began = time.monotonic()
        ended = ground.run(verb, folder)
        ground.seconds[verb] = time.monotonic() - began
        assert ended.code == 0, ended.stderr
        ground.bytes[verb] = occupied(folder) - before
        ground.known[verb] = made(verb, folder)
        shutil.rmtree(folder)
    return ground.known[verb]


@pytest.fixture(scope="session")
def disk(tmp_path_factory) -> Iterator[Path]:
    """A small file system of its own."""
    path = tmp_path_factory.mktemp("disk")
    words = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(path)]
    mounted = subprocess.run(words, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a small tmpfs: {mounted.stderr.strip()}")
    yield path
    subprocess.run(["umount", str(path)], check=True)


@pytest.fixture
def remount(disk):
    """A context in which that file system takes nothing."""

    @contextmanager
    def read_only() -> Iterator[None]:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        try:
            yield
        finally:
            subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)

    return read_only


RESULTS: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))


def pytest_runtest_logreport(report):
    found = re.search(r"test_faults\.py::test_(\w+)\[([a-z]+)", report.nodeid)
    if found and (report.when == "call" or report.outcome != "passed"):
        RESULTS[found[1]][found[2]].append(report.outcome)


def pytest_terminal_summary(terminalreporter):
    """A row a fault, a column a verb."""
    if not RESULTS:
        return
    words = {"failed": "NOT", "skipped": "-", "passed": "held"}  # the worst first
    width = max(map(len, RESULTS))
    terminalreporter.section("faults")
    terminalreporter.line(" " * width + "".join(f"{verb:>11}" for verb in ORDER))
    for fault, row in RESULTS.items():
        cells = (
            next((o for o in ("failed", "skipped", "passed") if o in row[verb]), "")
            for verb in ORDER
        )
        name = fault.replace("_", " ")
        terminalreporter.line(f"{name:{width}}" + "".join(f"{words.get(c, ''):>11}" for c in cells))
    counted = [outcome for row in RESULTS.values() for cell in row.values() for outcome in cell]
    held, lost = counted.count("passed"), counted.count("failed")
    terminalreporter.line(f"{held} held, {lost} not, {counted.count('skipped')} not tried")
