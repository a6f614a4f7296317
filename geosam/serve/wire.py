"""Messages as lines of JSON: what comes in, what goes out. Knows nothing of what they mean."""

import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, TypeAlias

from geosam.errors import ProtocolError

Message: TypeAlias = Mapping[str, Any]


class Wire:
    """A pair of byte streams that carry one JSON object a line, in UTF-8."""

    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Message]:
        """The messages that come in, until the stream ends; lines that are none are answered."""
        for line in self._incoming:
            if not line.strip():
                continue
            try:
                message = json.loads(line)
            except ValueError as error:
                self.fail(None, ProtocolError(f"Line: {error} (expected one JSON object a line)."))
                continue
            if isinstance(message, dict):
                yield message
            else:
                self.fail(
                    None,
                    ProtocolError(
                        f"Line: a JSON {type(message).__name__} (expected an object). Send a "
                        'request such as {"id": 1, "op": "hello"}.'
                    ),
                )

    def send(self, message: Message) -> None:
        """Send a message, whole, from any thread.

        Raises:
            ValueError: it holds a NaN or an infinity, which JSON has no word for.
        """
        line = json.dumps(message, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        with self._lock:
            self._outgoing.write(line)
            self._outgoing.flush()

    def fail(self, request: object, error: Exception, kind: str | None = None) -> None:
        """Answer a request with an error; `kind` is its class's name unless given."""
        self.send(
            {"id": request, "error": {"type": kind or type(error).__name__, "message": str(error)}}
        )
