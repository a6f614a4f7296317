"""Outputs that take their names when they are whole, and what killed runs left of others.

All writers of files and folders go through here, but for feature stores, which `tiles` writes.
"""

import logging
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from geosam.errors import GeosamError, OutputError
from tiles import TilesError

log = logging.getLogger(__name__)

_PROBE, _PROBE_BYTES = "probe", 2**16  # a full disk does not take another file


@contextmanager
def draft(path: str | Path) -> Iterator[Path]:
    """A place to write a file or a folder at, which takes its name when the block ends.

    The place has the file's name, in a hidden folder beside it; whatever else is written there,
    such as a `.shx`, is moved too, the file itself last. Without an end of the block, by an error
    or a signal, nothing is moved and what was there before stays.

    Raises:
        OutputError: it cannot be written: the disk is full, or the folder takes no files.
    """
    path = Path(path)
    with scratch(path) as folder:
        yield folder / path.name
        with (folder / _PROBE).open("wb") as probe:  # GDAL may not notice that a file's end is cut
            probe.write(bytes(_PROBE_BYTES))
        (folder / _PROBE).unlink()
        for part in sorted(folder.iterdir(), key=lambda part: part.name == path.name):
            part.replace(path.with_name(part.name))


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """A hidden folder beside a path, removed with all that is left in it when the block ends.

    Those that killed processes left beside the same path are removed as well: each has a lock,
    which its process holds, and which nobody holds once that has ended.

    Raises:
        OutputError: nothing can be written there.
    """
    if not path.parent.is_dir():
        raise OutputError(f"{path}: no folder {path.parent} (expected it to exist). Create it.")
    lock = path.with_name(f".{path.name}.{uuid4().hex[:8]}.lock")
    try:
        for left in path.parent.glob(f".{escape(path.name)}.*.lock"):
            with suppress(OSError), locked(left, timeout_s=0):  # Timeout is one too
                shutil.rmtree(left.with_suffix(".draft"), ignore_errors=True)
        with locked(lock):
            folder = lock.with_suffix(".draft")
            folder.mkdir()
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        if isinstance(error, GeosamError | TilesError):
            raise
        raise OutputError(
            f"{path}: {_reason(error)} (expected to be written). Make room, or choose another "
            "place, and run again."
        ) from error


@contextmanager
def locked(lock: Path, *, timeout_s: float = -1, waiting: str = "") -> Iterator[None]:
    """Hold a lock file, which is removed at the end; the system lets go of it if this is killed.

    Args:
        lock: the file.
        timeout_s: how long to wait for another process that holds it; -1: for as long as it does.
        waiting: what that process does, to be said as a warning if it is waited for.

    Raises:
        Timeout: another process still holds it.
    """
    try:
        file = FileLock(lock)
        try:
            held = file.acquire(0 if waiting else timeout_s)
        except Timeout:
            if not waiting:
                raise
            log.warning("%s; waiting for it", waiting)
            held = file.acquire(timeout_s)
        with held:
            try:
                yield
            finally:
                if sys.platform != "win32":  # which removes no open file
                    _remove(lock)
    finally:
        if sys.platform == "win32":  # elsewhere it may be another process's by now
            _remove(lock)


def _remove(lock: Path) -> None:
    with suppress(OSError):
        lock.unlink(missing_ok=True)


def _reason(error: OSError) -> str:
    return str(error.strerror or error.__cause__ or error)
