"""What a command does when it is told to stop: it says so in one line, and ends."""

import functools
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import NoReturn, ParamSpec, TypeVar

import click

P = ParamSpec("P")
R = TypeVar("R")

SIGNALS = (signal.SIGINT, signal.SIGTERM)
NOTHING = "nothing was written, and the same line again begins anew"
TILES = "tiles that are done are kept, and the same line again goes on from them"


def interruptible(kept: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator for commands: Ctrl-C and SIGTERM end them with exit code 130 or 143.

    They end as by any other error, so what is half written is removed.

    Args:
        kept: what of the work is kept, and what the same line will do.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
            if threading.current_thread() is not threading.main_thread():
                return function(*args, **kwargs)  # which gets no signals
            received: list[int] = []

            def stop(number: int, _frame: FrameType | None) -> NoReturn:
                received.append(number)
                raise KeyboardInterrupt

            before = {number: signal.getsignal(number) for number in SIGNALS}
            heard = [n for n, handler in before.items() if handler is not signal.SIG_IGN]
            for number in heard:  # the others a shell keeps from what runs in its background
                signal.signal(number, stop)
            try:
                return function(*args, **kwargs)
            except BaseException:  # also what a library has made of it
                if not received:
                    raise
            finally:
                for number in heard:
                    signal.signal(number, before[number])
            click.echo(f"Interrupted: {kept}.", err=True)
            raise SystemExit(128 + received[0])

        return wrapped

    return decorate
