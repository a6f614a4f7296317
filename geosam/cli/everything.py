"""The command that finds every object: everything."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import click

from geosam.automatic import run
from geosam.cli.interruption import TILES, interruptible
from geosam.cli.polygons import area_option, deliver, mode_option, output_option
from geosam.cli.shared import (
    ModelChoice,
    ProgressLine,
    bands_option,
    dask_option,
    data_errors,
    model_options,
    scales_option,
)
from geosam.output import Mode, check_path
from geosam.workers import connected


@click.command()
@click.argument("source", type=str)
@output_option
@mode_option
@click.option(
    "--area", type=click.Path(exists=True, path_type=Path),
    help="Vector file with polygons, in any CRS: only objects that reach into them.",
)  # fmt: skip
@area_option
@click.option(
    "--max-area", "max_area_m2", default=float("inf"), help="Square metres. Default: no limit."
)
@click.option(
    "--density", default=run.DENSITY, show_default=True,
    help="Points along the side of a tile at which it is prompted; half as many at scale 1/4.",
)  # fmt: skip
@click.option(
    "--coverage", is_flag=True,
    help="Share out all ground: no overlaps, neighbours with the same border.",
)  # fmt: skip
@click.option(
    "--labels", type=click.Path(path_type=Path),
    help="Also write a label raster (.tif): each pixel has its (smallest) object's id.",
)  # fmt: skip
@click.option(
    "--small", is_flag=True,
    help="Find objects of 8 to 24 px too, at scale 1/4. Takes about five times as long.",
)  # fmt: skip
@click.option(
    "--centred", is_flag=True,
    help="Lay tiles round what stands out in the image instead of on a grid, and keep none. Takes "
    "about twice as long; what is found depends neither on where tiles fall nor, a tile from its "
    "edges, on where the raster ends.",
)  # fmt: skip
@click.option("--regular", is_flag=True, help="Outlines with right angles, for buildings.")
@model_options
@click.option("--store", help="Where features are kept. Default: beside the raster.")
@scales_option
@bands_option
@dask_option
@interruptible(TILES)
@data_errors
def everything(  # noqa: PLR0913  # one parameter an option
    source: str,
    output: Path | None,
    mode: Mode,
    area: Path | None,
    min_area_m2: float,
    max_area_m2: float,
    density: int,
    labels: Path | None,
    chosen: ModelChoice,
    store: str | None,
    scales: Sequence[float] | None,
    bands: Sequence[int] | None,
    cluster: str | None,
    *,
    coverage: bool,
    small: bool,
    centred: bool,
    regular: bool,
) -> None:
    """Outline every object of SOURCE, a raster or a feature store.

    Objects come out whole, whatever tiles they lie in. The same line again goes on where it
    stopped.

    \b
    Examples:
      geosam everything ortho.tif -o objects.gpkg
      geosam everything ortho.tif -o fields.gpkg --area farm.gpkg --min-area 500
      geosam everything ortho.tif -o ground.fgb --coverage --labels ground.tif
      geosam everything ortho.tif -o trees.gpkg --small --area park.gpkg
    """
    if regular and coverage:
        raise click.UsageError(
            "--regular and --coverage: both (expected one: squared outlines would overlap). Leave "
            "one out."
        )
    if output:
        check_path(output, mode=mode)
    model = chosen.load()
    with connected(cluster) as client, ProgressLine("tile") as progress:
        batches = run.everything(
            model, source, store=store, bands=bands, scales=scales, small=small, area=area,
            min_area_m2=min_area_m2, max_area_m2=max_area_m2, density=density, centred=centred,
            coverage=coverage, regular=regular, labels=labels, client=client, progress=progress,
        )  # fmt: skip
        with closing(batches):  # also after an error, for what it has written so far
            deliver(batches, output, mode)
