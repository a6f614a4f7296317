"""What the commands share: options defined once, progress on stderr, errors as one line."""

import errno
import functools
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, get_args

import click

from geosam.errors import GeosamError
from geosam.protocol import Backend, Model, Precision
from tiles import TilesError

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.EFBIG)

P = ParamSpec("P")
R = TypeVar("R")

bands_option = click.option(
    "--bands", callback=lambda _ctx, _param, text: _numbers(text, int), metavar="R,G,B",
    help="Bands to look at, from 1: three, or one as grey. Default: those called red, green and "
    "blue, else 1,2,3.",
)  # fmt: skip
scales_option = click.option(
    "--scales", callback=lambda _ctx, _param, text: _numbers(text, float), metavar="S,S",
    help="Scales, in raster pixels per tile pixel: powers of two such as 0.5,1,2,4.",
)  # fmt: skip
dask_option = click.option(
    "--dask", "cluster", metavar="URL",
    help="Spread the work over a dask cluster, by its scheduler's address such as "
    "tcp://10.0.0.5:8786. Its workers see raster, store and weights under the same names.",
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON to stdout.")
raster_argument = click.argument("raster", type=str)


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A model as the user names it, see `load_model`."""

    name: str = "nano"
    device: str = "auto"
    precision: Precision = "fp32"
    backend: Backend = "torch"

    def load(self) -> Model:
        """The model, with torch, which is imported only now."""
        from geosam.model import load_model  # torch takes seconds

        return load_model(
            self.name, device=self.device, precision=self.precision, backend=self.backend
        )


def model_options(function: Callable[..., R]) -> Callable[..., R]:
    """Options that say which model computes, where and how; the command gets them as `chosen`."""

    @click.option(
        "--model",
        default="nano",
        show_default=True,
        help="A model's name, or the path of a weights file. See `geosam models list`.",
    )
    @click.option(
        "--device",
        default="auto",
        show_default=True,
        help="auto (a GPU if there is one), cpu, cuda or cuda:N.",
    )
    @click.option(
        "--precision",
        type=click.Choice(get_args(Precision)),
        default="fp32",
        show_default=True,
        help="bf16 is faster, where the hardware has it, and less exact.",
    )
    @click.option(
        "--backend", type=click.Choice(get_args(Backend)), default="torch", show_default=True,
        help="What runs the image encoder.",
    )  # fmt: skip
    @functools.wraps(function)
    def wrapped(
        *, model: str, device: str, precision: Precision, backend: Backend, **others: object
    ) -> R:
        return function(chosen=ModelChoice(model, device, precision, backend), **others)

    return wrapped


def data_errors(function: Callable[P, R]) -> Callable[P, R]:
    """Turn errors of the data and of the disk into one line on stderr and exit code 1."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except (GeosamError, TilesError) as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            if error.errno not in DISK_ERRORS:
                raise
            raise click.ClickException(
                f"{error.filename or 'Standard output'}: {error.strerror} (expected room, and the "
                "right to write). Make room, or choose another place, and run again."
            ) from error

    return wrapped


def report(values: Mapping[str, Any], *, as_json: bool) -> None:
    """Print a few named values to stdout, as JSON or as aligned lines."""
    if as_json:
        click.echo(json.dumps(values, indent=2))
        return
    width = max(map(len, values))
    for name, value in values.items():
        click.echo(f"{name.replace('_', ' '):{width}}  {value}")


class ProgressLine:
    """A progress hook that draws one line on stderr, with the time left; silent when piped.

    With `geosam --progress-lines` it writes lines such as `progress 3/12` for programs to read.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._began = time.monotonic()
        self._drawn = 0.0
        context = click.get_current_context(silent=True)
        self._for_programs = bool(context and context.find_root().params.get("progress_lines"))
        self._shows = self._for_programs or sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __call__(self, done: int, total: int) -> None:
        """Draw the line, at most ten times a second."""
        now = time.monotonic()
        if not self._shows or (done < total and now - self._drawn < 0.1):
            return
        self._drawn = now
        if self._for_programs:
            click.echo(f"progress {done}/{total}", err=True)
            return
        left = (now - self._began) / done * (total - done) if done else 0.0
        minutes, seconds = divmod(round(left), 60)
        click.echo(
            f"\r{self._what} {done}/{total}, {minutes}:{seconds:02} left \x1b[K", nl=False, err=True
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._drawn and not self._for_programs:
            click.echo(err=True)


def _numbers(text: str | None, kind: type[int] | type[float]) -> list[float] | None:
    if text is None:
        return None
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError as error:
        raise click.BadParameter(
            f"{text!r} (expected numbers with commas between, such as 1,2,3)"
        ) from error
