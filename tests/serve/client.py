"""A client at the other end of a server's streams."""

import json
import os
import queue
import threading
from contextlib import contextmanager

from geosam.serve.server import serve
from tests.fakes import FloodModel

CRS = "EPSG:32633"
DISC = {"id": "a", "points": [[516_208.5, 5_160_856.5]]}  # row 103, col 112


class SlowModel(FloodModel):
    """Waits, at its next encode, until it is let go."""

    def __init__(self):
        super().__init__()
        self.begun, self.go = threading.Event(), threading.Event()

    def encode(self, images):
        self.begun.set()
        self.go.wait(10)
        return super().encode(images)


class Client:
    """The other end of a server's streams."""

    def __init__(self, requests, answers):
        self._requests = requests
        self._lines = queue.Queue()
        self.events = []
        self._ids = iter(range(1, 10_000))
        self._kept = {}
        self.reader = threading.Thread(
            target=lambda: [self._lines.put(json.loads(line)) for line in answers]
        )
        self.reader.start()

    def raw(self, line):
        self._requests.write(line)
        self._requests.flush()

    def send(self, op, **given):
        number = next(self._ids)
        self.raw(json.dumps({"id": number, "op": op, **given}).encode() + b"\n")
        return number

    def answer(self, number):
        while number not in self._kept:
            message = self._lines.get(timeout=20)
            if "event" in message:
                self.events.append(message)
            else:
                assert message["id"] not in self._kept or message["id"] is None
                self._kept[message["id"]] = message
        return self._kept[number]

    def ask(self, op, **given):
        message = self.answer(self.send(op, **given))
        assert "ok" in message, message
        return message["ok"]

    def refused(self, op, **given):
        error = self.answer(self.send(op, **given))["error"]
        return error["type"], error["message"]


@contextmanager
def served(model):
    (their_in, our_out), (our_in, their_out) = os.pipe(), os.pipe()
    streams = [
        os.fdopen(end, mode)
        for end, mode in ((their_in, "rb"), (our_out, "wb"), (our_in, "rb"), (their_out, "wb"))
    ]
    rested = []
    server = threading.Thread(
        target=lambda: rested.append(serve(streams[0], streams[3], lambda *_choice: model))
    )
    server.start()
    client = Client(streams[1], streams[2])
    try:
        yield client
    finally:
        streams[1].close()
        server.join(10)
        streams[3].close()
        client.reader.join(10)
        streams[0].close()
        streams[2].close()
    assert rested == [True]
