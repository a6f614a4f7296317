"""The command that fine-tunes a model: train."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from geosam.cli.interruption import interruptible
from geosam.cli.shared import ModelChoice, ProgressLine, bands_option, data_errors, model_options
from geosam.errors import TrainingError
from geosam.evaluation.truth import read_manifest


@click.command()
@model_options
@click.option("--raster", help="The image that the polygons were drawn on.")
@click.option(
    "--truth", type=click.Path(path_type=Path), help="Polygons to learn from, in their own CRS."
)
@click.option(
    "--manifest", type=click.Path(path_type=Path),
    help="Instead of these two: a CSV file with columns raster and truth.",
)  # fmt: skip
@click.option(
    "--val", type=click.Path(path_type=Path),
    help="Polygons on the same raster to hold out. Default: see --val-share.",
)  # fmt: skip
@click.option(
    "--val-share", default=0.2, show_default=True,
    help="About which share of the polygons to hold out, by blocks of the ground.",
)  # fmt: skip
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True,
    help="The .safetensors file to write. A model card and a learning curve go beside it.",
)  # fmt: skip
@click.option(
    "--minutes", default=10.0, show_default=True,
    help="How long to train. It stops earlier when nothing more is gained.",
)  # fmt: skip
@click.option("--steps", type=int, help="Train so many steps instead.")
@click.option(
    "--encoder", is_flag=True, help="Train nano's image encoder too, not its decoder alone."
)
@bands_option
@interruptible("the run is kept up to its last checkpoint, and the same line again goes on from it")
@data_errors
def train(  # noqa: PLR0913  # one parameter an option
    chosen: ModelChoice,
    raster: str | None,
    truth: Path | None,
    manifest: Path | None,
    val: Path | None,
    val_share: float,
    output: Path,
    minutes: float,
    steps: int | None,
    bands: Sequence[int] | None,
    *,
    encoder: bool,
) -> None:
    """Fine-tune a model on polygons of your own.

    Blocks of the ground with some of the polygons are held out; the weights that serve these best
    are kept, be it those of the model itself. The same line again goes on after an interruption.

    The new model is used as any other: `--model my_fields.safetensors`.

    \b
    Examples:
      geosam train --raster ortho.tif --truth fields.gpkg -o my_fields.safetensors
      geosam train --manifest pairs.csv -o my_roofs.safetensors --minutes 30 --encoder
      torchrun --nproc-per-node 4 -m geosam train --manifest pairs.csv -o my_roofs.safetensors
    """
    if (manifest is None) != (raster is not None and truth is not None) or (
        manifest is not None and (raster or truth)
    ):
        raise click.UsageError(
            "Give either --raster and --truth, or --manifest. For example: --raster ortho.tif "
            "--truth fields.gpkg"
        )
    try:
        from geosam.training.fine_tuning import own_device  # torch takes seconds
        from geosam.training.fine_tuning import train as fine_tune
    except ModuleNotFoundError as error:
        raise TrainingError(
            f"Training: {error.name} is not installed (expected the packages that training needs). "
            "Run `pip install 'geosam-toolkit[train]'`."
        ) from error
    model = replace(chosen, device=own_device(chosen.device)).load()
    pairs = (
        [(pair.raster, pair.truth) for pair in read_manifest(manifest)]
        if manifest
        else [(str(raster), truth or "")]
    )
    with ProgressLine("training, step" if steps else "training, second") as progress:
        result = fine_tune(
            model, pairs, output, val=val, val_share=val_share, minutes=minutes,
            steps=steps, encoder=encoder, bands=bands, progress=progress,
        )  # fmt: skip
    click.echo(
        f"{sum(len(place.learned) for place in result.places)} polygons learned from, "
        f"{len(result.after.click)} held out, {result.steps} steps in {result.seconds:.0f} s",
        err=True,
    )
    for name, before, after, mean, low, high in result.rows:
        click.echo(
            f"{name:8} IoU {before:.3f} -> {after:.3f}, {mean:+.3f} ({low:+.3f} to {high:+.3f})",
            err=True,
        )
    if not result.kept:
        click.echo(
            f"No gain found: {result.path.name} holds the weights of {result.base}. More polygons, "
            "in more places, may help.",
            err=True,
        )
    click.echo(str(result.path))
