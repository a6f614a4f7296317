"""Fetching published weights: resumable, checked, and only when asked for.

Proxies are taken from the environment (HTTPS_PROXY, NO_PROXY), as everywhere.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from geosam.drafts import locked
from geosam.errors import DownloadError
from geosam.protocol import Progress
from geosam.registry import BLOCK, WeightsFile, sha256, state

ATTEMPTS = 5  # in a row that bring nothing
PAUSE_S = 1.0  # after the first failure, then twice as long each time
TIMEOUT_S = 30.0


def pull(file: WeightsFile, *, mirror: str | None = None, progress: Progress | None = None) -> Path:
    """Fetch a file of weights into the cache folder, unless it is there and whole.

    What has arrived is kept under the name with ".part" behind it and gone on with the next time.
    While another process fetches the same file, this one waits for it.
    The file gets its name when size and hash are right, so a file of that name is whole.

    Args:
        file: which one.
        mirror: folder URL to fetch from instead of where the file is published. Default: the
            environment's GEOSAM_MIRROR.
        progress: called with (done, total) bytes.

    Returns:
        The file's path.

    Raises:
        DownloadError: the environment's GEOSAM_OFFLINE forbids it; the server cannot be reached,
            lacks the file or has another one; there is no room on the disk.
    """
    if state(file) == "ok":
        return file.path
    if os.environ.get("GEOSAM_OFFLINE", "0") not in ("", "0"):
        raise DownloadError(
            f"{file.name}: not here, and GEOSAM_OFFLINE is set (expected it unset). Unset it, or "
            f"put the file at {file.path} yourself."
        )
    mirror = mirror or os.environ.get("GEOSAM_MIRROR")
    url = f"{mirror.rstrip('/')}/{file.filename}" if mirror else file.url
    if urlsplit(url).scheme not in ("http", "https"):
        raise DownloadError(f"{url}: no web address (expected http:// or https://). Correct it.")
    part = file.path.with_name(file.filename + ".part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with locked(part.with_suffix(".lock"), waiting=f"{file.name}: another process fetches it"):
            if state(file) != "ok":  # else another process has fetched it meanwhile
                _fetch_whole(file, url, part, progress)
    except DownloadError:
        raise
    except OSError as error:
        raise DownloadError(
            f"{part.parent}: {error.strerror or error} (expected a folder to write to). Make room, "
            "or set GEOSAM_CACHE to another one; the same line again goes on."
        ) from error
    return file.path


def _fetch_whole(file: WeightsFile, url: str, part: Path, progress: Progress | None) -> None:
    _make_room(file, part)
    _fetch(url, part, file.size, progress)
    found = sha256(part)
    if found != file.sha256:
        part.unlink()
        raise DownloadError(
            f"{url}: sha256 {found} (expected {file.sha256}). It was removed; try again, or from "
            "another mirror."
        )
    part.replace(file.path)


def _make_room(file: WeightsFile, part: Path) -> None:
    """Leave a partial file that can be gone on with, or none; refuse if the rest would not fit."""
    if _size(part) > file.size:
        part.unlink()
    needed, free = file.size - _size(part), shutil.disk_usage(part.parent).free
    if needed > free:
        raise DownloadError(
            f"{part.parent}: {free / 1e6:.0f} MB free (expected {needed / 1e6:.0f} MB for "
            f"{file.name}). Make room, or set GEOSAM_CACHE to another folder."
        )


def _fetch(url: str, part: Path, size: int, progress: Progress | None) -> None:
    """Append to the partial file until it has its size, however often the connection breaks."""
    failures = 0
    while (begun := _size(part)) < size:
        reason = "the connection ended"
        try:
            with _opened(url, begun) as response:
                _append(url, response, part, size, progress)
        except (URLError, HTTPException, TimeoutError, ConnectionError) as error:
            reason = str(getattr(error, "reason", "") or error) or type(error).__name__
        if _size(part) > begun:
            failures = 0
            continue
        failures += 1
        if failures == ATTEMPTS:
            raise DownloadError(
                f"{url}: {reason} after {_size(part)} of {size} bytes (expected all of them). Run "
                "the same line again to go on, check the network and HTTPS_PROXY, or name a mirror."
            )
        time.sleep(PAUSE_S * 2 ** (failures - 1))


@contextmanager
def _opened(url: str, begin: int) -> Iterator[HTTPResponse]:
    """The server's answer, from that byte on if it can."""
    request = Request(url, headers={"Range": f"bytes={begin}-", "User-Agent": "geosam"})
    try:
        with urlopen(request, timeout=TIMEOUT_S) as response:
            yield response
    except HTTPError as error:
        if error.code >= 500:
            raise  # may pass
        raise DownloadError(
            f"{url}: the server answers {error.code} {error.reason} (expected the file). Correct "
            "the mirror, or try without one."
        ) from error


def _append(
    url: str, response: HTTPResponse, part: Path, size: int, progress: Progress | None
) -> None:
    """Write what the server sends; from the start if it does not go on where the file ends."""
    done = _size(part)
    length = int(response.headers.get("Content-Length", -1))
    start = done
    if response.status != 206:
        start = 0
    elif not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
        raise DownloadError(
            f"{url}: the server sends {response.headers.get('Content-Range')} (expected bytes "
            f"{done}-). Name another mirror."
        )
    if length >= 0 and start + length != size:
        raise DownloadError(
            f"{url}: {start + length} bytes (expected {size}). It is another file; name another "
            "mirror."
        )
    with part.open("ab" if start else "wb") as file:
        done = start
        while done < size and (block := response.read(min(BLOCK, size - done))):
            file.write(block)
            done += len(block)
            if progress:
                progress(done, size)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
