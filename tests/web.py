"""A web server for the files of a folder, which answers byte ranges and counts what it sends."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, list[int]]]:
    """The server's address, and how many bytes each answer had."""
    sent: list[int] = []

    class Ranges(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self):
            self.begin()

        def do_GET(self):
            if path := self.begin():
                with path.open("rb") as file:
                    file.seek(self.first)
                    part = file.read(self.last - self.first + 1)
                sent.append(len(part))
                self.wfile.write(part)

        def begin(self):
            path = folder / self.path.split("?")[0].lstrip("/")
            if not path.is_file():
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return None
            size, asked = path.stat().st_size, self.headers.get("Range")
            first, last = (asked or "bytes=0-").removeprefix("bytes=").split("-")
            self.first, self.last = int(first), min(int(last or size - 1), size - 1)
            self.send_response(206 if asked else 200)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(self.last - self.first + 1))
            if asked:
                self.send_header("Content-Range", f"bytes {self.first}-{self.last}/{size}")
            self.end_headers()
            return path

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Ranges)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", sent
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def forbidding() -> Iterator[str]:
    """The address of a server that grants nothing."""

    class Forbids(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_PUT = do_HEAD

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Forbids)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()
