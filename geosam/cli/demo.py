"""The demo: trees on a real aerial image, from prompts in longitude and latitude."""

from importlib.resources import as_file, files
from pathlib import Path

import click

from geosam import verbs
from geosam.cli.interruption import TILES, interruptible
from geosam.cli.shared import ModelChoice, ProgressLine, data_errors
from geosam.output import write
from geosam.prompts import PromptSet


@click.command()
@click.option(
    "-o", "--output", type=click.Path(file_okay=False, path_type=Path), default=Path("demo"),
    show_default=True, help="Folder for the results.",
)  # fmt: skip
@interruptible(TILES)
@data_errors
def demo(output: Path) -> None:
    """Outline trees on a bundled aerial image and draw them.

    The image is 40 m x 40 m of woodland in Florida at 10 cm; the prompts are clicks and boxes in
    longitude and latitude. Writes trees.gpkg and trees.png.

    \b
    Examples:
      geosam demo
      geosam demo -o /tmp/demo
    """
    output.mkdir(parents=True, exist_ok=True)
    polygons_path, picture = output / "trees.gpkg", output / "trees.png"
    with as_file(files("geosam") / "demo") as folder:
        image = folder / "OSBS_029.tif"
        prompts = PromptSet.read(folder / "prompts.geojson")
        model = ModelChoice().load()
        with ProgressLine("segmenting") as progress:
            polygons = verbs.segment(
                model, image, prompts, store=output / "features.zarr", progress=progress
            )
        write(polygons, polygons_path, mode="replace")
        verbs.preview(image, polygons, picture, prompts=prompts)
    click.echo(polygons.drop(columns="geometry").to_string(index=False), err=True)
    click.echo(f"{polygons_path}\n{picture}")
