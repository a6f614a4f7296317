"""Each fault befalls each verb, in a process that runs the command.

What has its name is whole, the exit code says what happened, the message says what to do, nothing
is left lying about, and the next run makes what an undisturbed one makes.
"""

import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import geopandas
import pytest
import rasterio

from tests.fakes import tiles_of
from tests.faults.child import Ill
from tests.faults.verbs import PAGE, SIDE, VERBS, chunk_of, flip, made
from tiles import FeatureStore, Raster, RasterError

KILLS = 6
ALL = tuple(VERBS)
pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")


def each(verbs, always):
    """A test for each of these verbs, slow but for those that are always tried."""
    return pytest.mark.parametrize(
        "verb",
        [pytest.param(v, marks=() if v in always.split() else pytest.mark.slow) for v in verbs],
    )


def check_whole(verb, folder, known):
    """What has its name is what an undisturbed run makes; a store may lack tiles."""
    for output, found in made(verb, folder).items():
        if output.endswith(".zarr"):
            assert found.items() <= known[output].items()
        else:
            assert found == known[output]


def check_next_run(ground, verb, folder, known):
    """It makes what is missing; or it refuses to make anew what is there, all of it and whole."""
    there = made(verb, folder) == known
    ended = ground.run(verb, folder)
    assert ended.code == 0 or (there and "exists" in ended.stderr), ended.stderr
    assert made(verb, folder) == known
    assert there or not left(folder, "*.draft", "*.lock")


def check_error(ended, verb, cure):
    """It ended in one line that names a file and says what to do."""
    assert ended.code == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    error = ended.stderr.strip().splitlines()[-1]
    places = [
        *(Path(output).parts[0] for output in VERBS[verb].outputs),
        VERBS[verb].raster,
        VERBS[verb].store,
        "cache",
        ".objects",
        ".training",
    ]
    assert error.startswith("Error: ") and any(place and place in error for place in places)
    assert "(expected" in error or "unreadable" in error
    assert re.search(cure, error), error
    return error


def left(folder, *patterns):
    """What a run has left behind."""
    return [path for pattern in patterns for path in folder.rglob(pattern)]


@each(ALL, "encode segment labels vectorize pull")
def test_killed_at_a_name(ground, undisturbed, verb):
    folder = ground.folder()
    for output in VERBS[verb].outputs:
        for moment in ("before", "after"):
            ill = Ill(sends=signal.SIGKILL, **{moment: Path(output).name})
            assert ground.run(verb, folder, ill).code == -signal.SIGKILL
            assert (output in made(verb, folder)) == (moment == "after")
            check_whole(verb, folder, undisturbed)
    check_next_run(ground, verb, folder, undisturbed)


@each(ALL, "everything")
def test_killed_at_any_moment(ground, undisturbed, verb):
    folder = ground.folder()
    moments = random.Random(verb)
    for _ in range(KILLS):
        command = ground.start(verb, folder)
        time.sleep(moments.uniform(0, ground.seconds[verb]))
        command.kill()
        ended = command.end()
        check_whole(verb, folder, undisturbed)
        if ended.code != -signal.SIGKILL:
            break  # it was quicker
    check_next_run(ground, verb, folder, undisturbed)


@each(ALL, "encode segment coverage export pull")
def test_interrupted(ground, undisturbed, verb):
    folder = ground.folder()
    named = Ill(sends=signal.SIGTERM, before=Path(VERBS[verb].outputs[-1]).name)
    ills = [named] if verb == "import" else [Ill(sends=signal.SIGINT, progress=0), named]
    for ill in reversed(ills) if verb == "encode" else ills:
        ended = ground.run(verb, folder, ill)
        assert ended.code == 128 + ill.sends, ended.stderr
        told = [line for line in ended.stderr.splitlines() if not line.startswith("progress ")]
        assert len(told) == 1
        assert re.match(r"Interrupted: .* the same line again (goes on|begins anew)", told[0])
        check_whole(verb, folder, undisturbed)
        assert not left(folder, "*.draft", "*.lock", "*.partial", ".*zarr*")
    check_next_run(ground, verb, folder, undisturbed)


SHARES = [0.5, *(pytest.param(share, marks=pytest.mark.slow) for share in (0.0, 0.2, 0.8, 0.97))]


@pytest.mark.parametrize("share", SHARES)
@each(ALL, "encode segment labels vectorize chips")
def test_disk_full(ground, undisturbed, disk, verb, share):
    folder = ground.folder(disk)
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        file.write(bytes(shutil.disk_usage(disk).free - int(share * ground.bytes[verb])))
    ended = ground.run(verb, folder)
    ballast.unlink()
    if share < 0.9 or ended.code:  # else the room may do
        check_error(ended, verb, "ake room")
    check_whole(verb, folder, undisturbed)
    assert not left(folder, "*.draft", "*.lock", "*.partial", ".*zarr*")
    check_next_run(ground, verb, folder, undisturbed)
    shutil.rmtree(folder)


@each(ALL, "encode vectorize")
def test_file_too_large(ground, undisturbed, verb):
    folder = ground.folder()
    ended = ground.run(verb, folder, Ill(file_bytes=1000))
    check_error(ended, verb, "ake room")
    check_whole(verb, folder, undisturbed)
    assert not left(folder, "*.draft", "*.lock", "*.partial", ".*zarr*")
    check_next_run(ground, verb, folder, undisturbed)


@each(ALL, "encode vectorize")
def test_read_only(ground, undisturbed, disk, remount, verb):
    folder = ground.folder(disk)
    with remount():
        check_error(ground.run(verb, folder), verb, "ake room")
    check_next_run(ground, verb, folder, undisturbed)
    shutil.rmtree(folder)


def spoil_a_block(path):
    """Overwrite a block of a raster that tells nothing of which raster it is, and say which."""
    whole = path.read_bytes()
    with rasterio.open(path) as file:
        (high, wide), *_ = file.block_shapes
        places = {
            (row, col): [
                int(file.get_tag_item(f"BLOCK_{what}_{col}_{row}", "TIFF", bidx=1))
                for what in ("OFFSET", "SIZE")
            ]
            for row in range(SIDE // high // 2)
            for col in range(SIDE // wide // 2)
        }
    for (row, col), (offset, size) in places.items():
        path.write_bytes(whole[:offset] + b"\xff" * size + whole[offset + size :])
        try:
            with Raster.open(path) as raster:
                assert raster.fingerprint
        except RasterError:
            continue
        return (col * wide, row * high, (col + 1) * wide, (row + 1) * high)
    raise AssertionError("every block is sampled")


READERS = tuple(verb for verb in VERBS if VERBS[verb].raster)


@each(READERS, "encode segment vectorize")
def test_unreadable_block(ground, undisturbed, verb):
    folder = ground.folder()
    name = VERBS[verb].raster
    xmin, ymin, xmax, ymax = spoil_a_block(folder / name)
    error = check_error(ground.run(verb, folder), verb, r"get it again|[Ii]s the file whole")
    assert name in error and re.search(r"tile \(|window|rows|columns|col", error), error
    check_whole(verb, folder, undisturbed)
    if verb == "encode":  # the others are there
        store = FeatureStore.open(folder / "f.zarr")
        missing = [tile for scale in (1, 2, 4, 8) for tile in store.missing(scale)]
        assert missing
        for tile in missing:
            window = tile.read
            assert window.col < xmax and window.right > xmin
            assert window.row < ymax and window.bottom > ymin
    shutil.copyfile(ground.inputs / name, folder / name)
    check_next_run(ground, verb, folder, undisturbed)


STORERS = tuple(verb for verb in VERBS if VERBS[verb].store)


@each(STORERS, "encode segment")
def test_corrupt_tile(ground, undisturbed, verb):
    folder = ground.folder()
    assert ground.run(verb, folder).code == 0
    store = FeatureStore.open(folder / VERBS[verb].store)
    before = tiles_of(store)
    scale = max(scale for scale, _ in before)
    tile = store.grid(scale)[0, 0]
    flip(chunk_of(store, "features", tile))
    if verb == "encode":
        ended = ground.run(verb, folder)
        assert ended.code == 0 and f"{tile} is damaged and encoded again" in ended.stderr
        assert "progress 1/1" in ended.stderr  # nothing else is
    else:
        for path in [folder / name for name in VERBS[verb].outputs] + left(folder, "*.objects"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        error = check_error(ground.run(verb, folder), verb, r"check --repair")
        assert f"{tile} is damaged" in error
        words = f"check {VERBS[verb].store} --repair --raster ortho.tif"
        ended = ground.run(verb, folder, words=words)
        assert ended.code == 0 and re.search(r"repaired +True", ended.stdout), ended.stderr
        check_next_run(ground, verb, folder, undisturbed)
    assert tiles_of(store) == before


PAIRED = ("encode", "segment", "everything", "coverage", "pull")


@each(PAIRED, "encode pull")
def test_two_at_once(ground, undisturbed, verb):
    folder = ground.folder()
    twin = VERBS[verb].words
    for output in ("found", "seen", "all."):  # results have names of their own, stores do not
        twin = twin.replace(output, f"twin-{output}")
    pair = [ground.start(verb, folder), ground.start(verb, folder, words=twin)]
    for command in pair:
        ended = command.end()
        assert ended.code == 0, ended.stderr
    assert made(verb, folder) == undisturbed
    if VERBS[verb].store:
        assert FeatureStore.open(folder / VERBS[verb].store).verify() == []
    for path in folder.glob("twin-*"):
        path.replace(path.with_name(path.name.removeprefix("twin-")))
    assert made(verb, folder) == undisturbed
    assert not left(folder, "*.draft", "*.lock", "*.part")


@each(("vectorize", "coverage"), "vectorize")
def test_two_writers(ground, undisturbed, verb):
    """Of one output: one writes it, the other may be refused for it."""
    folder = ground.folder()
    pair = [ground.start(verb, folder) for _ in range(2)]
    ended = [command.end() for command in pair]
    assert min(one.code for one in ended) == 0
    assert all(one.code == 0 or "exists already" in one.stderr for one in ended)
    assert made(verb, folder) == undisturbed
    assert not left(folder, "*.draft", "*.lock")


@each(ALL, "encode everything")
def test_clock_jumps(ground, undisturbed, verb):
    folder = ground.folder()
    ill = Ill(sends=signal.SIGKILL, before=Path(VERBS[verb].outputs[-1]).name, clock=True)
    assert ground.run(verb, folder, ill).code == -signal.SIGKILL
    for number, path in enumerate(sorted(folder.rglob("*"))):
        moment = (0, 4e9)[number % 2]  # 1970 and 2096
        os.utime(path, (moment, moment))
    ended = ground.run(verb, folder, Ill(clock=True))
    assert ended.code == 0, ended.stderr
    assert made(verb, folder) == undisturbed


@each(("segment", "everything", "vectorize"), "vectorize")
def test_stdout_full(ground, verb):
    folder = ground.folder()
    words = re.sub(r"-o +\S+|--preview +\S+", "", VERBS[verb].words)
    ended = ground.run(verb, folder, Ill(stdout="/dev/full"), words=words)
    assert ended.code == 1
    assert "Traceback" not in ended.stderr
    assert "Standard output: No space left" in ended.stderr


@pytest.mark.parametrize("verb", ["segment"])
@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".geojson", ".shp", ".parquet"])
@pytest.mark.parametrize("batches", [False, True])
def test_full_at_any_byte(ground, disk, verb, suffix, batches):
    """Wherever the disk ends, a file is whole or absent, be it written at once or in batches."""
    from geosam.errors import OutputError
    from geosam.output import write

    table = geopandas.read_file(ground.inputs / "truth.gpkg")
    whole = disk / f"whole{suffix}"

    def given():
        return iter([table[:2], table[2:]]) if batches else table

    write(given(), whole)
    needed = sum(path.stat().st_size for path in disk.glob("whole*"))
    for path in disk.glob("whole*"):
        path.unlink()
    path, ballast = disk / f"a{suffix}", disk / "ballast"
    outcomes = set()
    ballast.write_bytes(bytes(shutil.disk_usage(disk).free))
    for _ in range(needed // PAGE + 40):
        os.truncate(ballast, ballast.stat().st_size - PAGE)
        try:
            write(given(), path)
            wrote = True
        except OutputError:
            wrote = False
        outcomes.add(wrote)
        assert path.exists() == wrote
        if wrote:
            read = geopandas.read_parquet if suffix == ".parquet" else geopandas.read_file
            assert len(read(path)) == len(table)
        for part in disk.glob("a.*"):
            part.unlink()
        assert list(disk.iterdir()) == [ballast]
    ballast.unlink()
    assert outcomes == {True, False}
