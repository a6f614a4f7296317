"""The command that measures a model on true outlines."""

import json
from collections.abc import Sequence
from pathlib import Path

import click

from geosam.cli.interruption import TILES, interruptible
from geosam.cli.shared import ModelChoice, ProgressLine, bands_option, data_errors, model_options
from geosam.drafts import draft
from geosam.errors import OutputError, OutputExists
from geosam.evaluation.report import summarize, table
from geosam.evaluation.sheet import draw_sheet
from geosam.evaluation.trials import evaluate as measure
from geosam.evaluation.truth import Pair, read_manifest


@click.command()
@click.option("--raster", help="The raster.")
@click.option("--truth", type=click.Path(path_type=Path), help="True outlines on it, as polygons.")
@click.option(
    "--manifest", type=click.Path(path_type=Path),
    help="Instead of both: a CSV file with the columns raster, truth and, if wanted, class; paths "
    "are relative to it.",
)  # fmt: skip
@click.option("--class-column", help="Column of the outlines that holds their class.")
@click.option(
    "--limit", type=click.IntRange(min=1),
    help="At most so many objects of each class, drawn at random but always the same.",
)  # fmt: skip
@click.option(
    "--json", "figures", type=click.Path(path_type=Path),
    help="Also write all figures to a new JSON file.",
)  # fmt: skip
@click.option(
    "--picture", type=click.Path(path_type=Path),
    help="Also draw the worst, middling and best cases, as PNG; an older one is replaced.",
)  # fmt: skip
@model_options
@bands_option
@interruptible(TILES)
@data_errors
def evaluate(  # noqa: PLR0913  # one parameter an option
    raster: str | None,
    truth: Path | None,
    manifest: Path | None,
    class_column: str | None,
    limit: int | None,
    figures: Path | None,
    picture: Path | None,
    chosen: ModelChoice,
    bands: Sequence[int] | None,
) -> None:
    """Measure a model on true outlines.

    Each outline is prompted with its box, and with 1 to 5 clicks, each where most is still wrong.
    The final polygons are compared with the true ones.

    \b
    Examples:
      geosam evaluate --raster ortho.tif --truth roofs.gpkg --picture worst.png
      geosam evaluate --manifest towns.csv --model sam-vit-b --limit 200 --json sam.json
    """
    pairs = _pairs(raster, truth, manifest)
    for path in filter(None, (figures, picture)):
        if not path.parent.is_dir():
            raise OutputError(f"{path}: no folder {path.parent} (expected it to exist). Create it.")
    if figures and figures.exists():
        raise OutputExists(f"{figures}: exists already (expected a new file). Choose another name.")
    model = chosen.load()
    with ProgressLine("evaluating prompt") as progress:
        evaluation = measure(
            model, pairs, class_column=class_column, bands=bands, limit=limit, progress=progress
        )
    summary = summarize(evaluation)
    click.echo(table(summary))
    if picture:
        draw_sheet(evaluation, picture)
    if figures:  # last, for where they are nothing is left to do
        with draft(figures) as place:
            place.write_text(json.dumps(summary, indent=2) + "\n")


def _pairs(raster: str | None, truth: Path | None, manifest: Path | None) -> list[Pair]:
    if manifest and not (raster or truth):
        return read_manifest(manifest)
    if raster and truth and not manifest:
        return [Pair(raster, truth)]
    raise click.UsageError(
        "Give either --raster and --truth or --manifest. For example: --raster ortho.tif "
        "--truth roofs.gpkg"
    )
