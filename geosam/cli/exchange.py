"""Commands that exchange labels with other programs: export, import."""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import click

from geosam.cli.interruption import NOTHING, interruptible
from geosam.cli.shared import ProgressLine, bands_option, data_errors
from geosam.exchange.coco import import_coco
from geosam.exchange.training_set import Format
from geosam.exchange.training_set import export as export_set
from geosam.output import Mode, check_path, write


@click.command()
@click.argument("raster", type=str)
@click.argument("polygons", type=click.Path(path_type=Path))
@click.option(
    "--format", "form", type=click.Choice(get_args(Format)), required=True,
    help="coco: PNGs with instances as JSON. yolo: PNGs with text files. chips: GeoTIFFs with "
    "GeoParquet.",
)  # fmt: skip
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder to make."
)
@click.option("--class-column", help="Column that holds the class. Default: one class, object.")
@click.option(
    "--size", type=click.IntRange(min=16), default=512, show_default=True,
    help="Side of an image, px.",
)  # fmt: skip
@click.option(
    "--overlap", type=click.IntRange(min=0), default=0, show_default=True,
    help="Of neighbouring images, px.",
)  # fmt: skip
@click.option(
    "--val-share", type=click.FloatRange(0, 1, max_open=True), default=0.2, show_default=True,
    help="About what share of the polygons is for validation, in blocks of ground of their own.",
)  # fmt: skip
@bands_option
@interruptible(NOTHING)
@data_errors
def export(  # noqa: PLR0913  # one parameter an option
    raster: str,
    polygons: Path,
    form: Format,
    output: Path,
    class_column: str | None,
    size: int,
    overlap: int,
    val_share: float,
    bands: Sequence[int] | None,
) -> None:
    """Write polygons and their raster as a training set.

    Only parts of RASTER that show POLYGONS are written. Images of train and val never share
    ground.

    \b
    Examples:
      geosam export ortho.tif roofs.gpkg --format coco -o roofs-coco
      geosam export ortho.tif fields.gpkg --format yolo --class-column crop --size 640 -o fields
      geosam export ortho.tif trees.gpkg --format chips --overlap 64 --val-share 0 -o trees
    """
    if overlap >= size:
        raise click.UsageError(f"--overlap {overlap} (expected less than --size, {size}).")
    with ProgressLine("writing image") as progress:
        made = export_set(
            raster, polygons, output, format=form, class_column=class_column, size=size,
            overlap=overlap, val_share=val_share, bands=bands, progress=progress,
        )  # fmt: skip
    click.echo(str(made.folder))
    for split, images in sorted(made.images.items()):
        click.echo(f"{split}: {images} images, {made.pieces[split]} labels", err=True)
    click.echo(f"{made.cut} labels are cut by an image's edge", err=True)
    if made.notes:
        notes = ", ".join(f"{count} {note}" for note, count in made.notes.items())
        click.echo(f"Left out, or cut at the raster's edge: {notes}", err=True)


@click.command(name="import")
@click.argument("files", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True,
    help="File to write: .gpkg, .geojson, .fgb, .shp or .parquet.",
)  # fmt: skip
@click.option(
    "--mode", type=click.Choice(["create", "append", "replace"]), default="create",
    show_default=True, help="What to do if the file exists: create refuses.",
)  # fmt: skip
@click.option(
    "--raster", help="Raster that the only image shows, if the files do not say where images lie."
)
@interruptible(NOTHING)
@data_errors
def import_labels(files: Sequence[Path], output: Path, mode: Mode, raster: str | None) -> None:
    """Turn COCO annotations into polygons on the ground.

    FILES are those of `geosam export --format coco`, edited or not, or any others with --raster.
    Pieces of one polygon are joined again. For label rasters see `geosam vectorize`.

    \b
    Examples:
      geosam import roofs-coco/annotations/*.json -o roofs.gpkg
      geosam import labels.json --raster ortho.tif -o labels.gpkg
    """
    check_path(output, mode=mode)
    polygons = import_coco(files, raster=raster)
    write(polygons, output, mode=mode)
    click.echo(str(output))
    click.echo(f"{len(polygons)} polygons", err=True)
