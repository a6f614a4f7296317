"""Commands that give polygons: segment, vectorize."""

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import click
import geopandas

from geosam import verbs
from geosam.cli.interruption import NOTHING, TILES, interruptible
from geosam.cli.shared import (
    ModelChoice,
    ProgressLine,
    bands_option,
    dask_option,
    data_errors,
    model_options,
    scales_option,
)
from geosam.errors import OutputError
from geosam.output import Mode, check_path, write
from geosam.polygons import vectorize as vectorize_masks
from geosam.prompts import PromptSet
from geosam.workers import connected

output_option = click.option(
    "-o", "--output", type=click.Path(path_type=Path),
    help="File to write: .gpkg, .geojson, .fgb, .shp or .parquet. Default: GeoJSON to stdout.",
)  # fmt: skip
mode_option = click.option(
    "--mode", type=click.Choice(["create", "append", "replace"]), default="create",
    show_default=True, help="What to do if the file exists: create refuses.",
)  # fmt: skip
area_option = click.option(
    "--min-area", "min_area_m2", default=0.0, show_default=True, help="Square metres."
)
simplify_option = click.option(
    "--simplify", "simplify_m", type=float,
    help="How far outlines may move to get simpler, in metres.",
)  # fmt: skip


@click.command()
@click.argument("source", type=str)
@click.argument("prompts", type=click.Path(path_type=Path), required=False)
@click.option(
    "--point",
    "points",
    type=(float, float),
    multiple=True,
    metavar="X Y",
    help="A click on an object; may be repeated, each an object of its own.",
)
@click.option(
    "--box",
    "boxes",
    type=(float, float, float, float),
    multiple=True,
    metavar="XMIN YMIN XMAX YMAX",
    help="A box round an object; may be repeated.",
)
@click.option(
    "--crs",
    help="CRS of --point and --box (default: the raster's), or of a file that does not say.",
)
@click.option("--layer", help="Layer of the prompts file.")
@output_option
@mode_option
@click.option(
    "--preview",
    "picture",
    type=click.Path(path_type=Path),
    help="Also draw the result over the image, as PNG.",
)
@model_options
@click.option("--store", help="Where features are kept. Default: beside the raster.")
@scales_option
@bands_option
@dask_option
@click.option(
    "--centred",
    is_flag=True,
    help="Encode tiles round each prompt: slower, the same wherever the raster's tiles fall.",
)
@click.option("--multimask", is_flag=True, help="Three polygons for each single click.")
@area_option
@simplify_option
@interruptible(TILES)
@data_errors
def segment(  # noqa: PLR0913  # one parameter an option
    source: str,
    prompts: Path | None,
    points: Sequence[tuple[float, float]],
    boxes: Sequence[tuple[float, float, float, float]],
    crs: str | None,
    layer: str | None,
    output: Path | None,
    mode: Mode,
    picture: Path | None,
    chosen: ModelChoice,
    store: str | None,
    scales: Sequence[float] | None,
    bands: Sequence[int] | None,
    cluster: str | None,
    min_area_m2: float,
    simplify_m: float | None,
    *,
    centred: bool,
    multimask: bool,
) -> None:
    """Outline the object of each prompt.

    SOURCE is a raster or a feature store. PROMPTS is a vector file with points, boxes or polygons,
    in its own CRS. Points of one object share an `id`; a `label` of 0 marks points beside it.

    \b
    Examples:
      geosam segment ortho.tif clicks.gpkg -o trees.gpkg
      geosam segment ortho.tif --point -122.14 37.64 --crs EPSG:4326 -o lake.geojson
      geosam segment ortho.features.zarr boxes.geojson -o roofs.gpkg --preview roofs.png
    """
    asked = _prompts(prompts, points, boxes, crs, layer)
    if output:
        check_path(output, mode=mode)
    model = chosen.load()
    with connected(cluster) as client, ProgressLine("segmenting") as progress:
        polygons = verbs.segment(
            model, source, asked, store=store, bands=bands, scales=scales, centred=centred,
            multimask=multimask, min_area_m2=min_area_m2, simplify_m=simplify_m, client=client,
            progress=progress,
        )  # fmt: skip
    if picture:
        verbs.preview(source, polygons, picture, prompts=asked, bands=bands)
    deliver(polygons, output, mode)  # last, for where it is nothing is left to do
    statuses = polygons["status"].value_counts().to_dict()
    click.echo(
        f"{len(polygons)} prompts: " + ", ".join(f"{n} {name}" for name, n in statuses.items()),
        err=True,
    )


@click.command()
@click.argument("labels", type=click.Path(exists=True, path_type=Path))
@output_option
@mode_option
@area_option
@simplify_option
@interruptible(NOTHING)
@data_errors
def vectorize(
    labels: Path, output: Path | None, mode: Mode, min_area_m2: float, simplify_m: float | None
) -> None:
    """Turn a label raster into polygons.

    LABELS is a label or binary GeoTIFF. One polygon a label; if there is but one label, one a part.

    \b
    Examples:
      geosam vectorize masks.tif -o fields.gpkg --min-area 4 --simplify 0.5
    """
    with ProgressLine("vectorizing block") as progress:
        polygons = vectorize_masks(
            labels, min_area_m2=min_area_m2, simplify_m=simplify_m, progress=progress
        )
    deliver(polygons, output, mode)
    click.echo(f"{len(polygons)} polygons", err=True)


def _prompts(
    path: Path | None,
    points: Sequence[tuple[float, float]],
    boxes: Sequence[tuple[float, float, float, float]],
    crs: str | None,
    layer: str | None,
) -> PromptSet:
    given = bool(points or boxes)
    if (path is not None) == given:
        raise click.UsageError(
            "Give either a file of prompts or --point and --box"
            + (", not both." if given else ". For example: --point 500120 4999830")
        )
    if path is not None:
        return PromptSet.read(path, layer=layer, crs=crs)
    return PromptSet.of(points=points, boxes=boxes, crs=crs)


def deliver(
    polygons: geopandas.GeoDataFrame | Iterable[geopandas.GeoDataFrame],
    output: Path | None,
    mode: Mode,
) -> None:
    """Write polygons, or batches of them, to a file or as GeoJSON to stdout."""
    if output:
        write(polygons, output, mode=mode)
        click.echo(str(output))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "polygons.geojson"
        try:
            write(polygons, path)
        except OutputError as error:
            raise OutputError(
                "Standard output: GeoJSON cannot hold these polygons (expected a CRS of the "
                "Earth). Name a file with -o, such as -o polygons.gpkg."
            ) from error
        click.echo(path.read_text())
