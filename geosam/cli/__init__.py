"""The command line: one command, one verb. Data to stdout, progress to stderr.

Exit codes: 0 done; 1 the data's or the disk's fault; 2 the command line's fault; 130 and 143
stopped by Ctrl-C and SIGTERM.
"""

import click

from geosam import __version__
from geosam.cli.demo import demo
from geosam.cli.evaluate import evaluate
from geosam.cli.everything import everything
from geosam.cli.exchange import export, import_labels
from geosam.cli.features import check, encode, info, mosaic
from geosam.cli.polygons import segment, vectorize
from geosam.cli.serve import serve
from geosam.cli.training import train
from geosam.cli.weights import models


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="geosam")
@click.option(
    "--progress-lines", is_flag=True,
    help="Tell progress in lines such as `progress 3/12` on stderr, for programs.",
)  # fmt: skip
def main(*, progress_lines: bool) -> None:  # read by ProgressLine
    """Promptable segmentation for maps.

    Clicks and boxes in map coordinates in, georeferenced polygons out.

    \b
    Start with:
      geosam demo                                    a real image, prompts, polygons, a picture
      geosam segment ortho.tif clicks.gpkg -o trees.gpkg
    """


for command in (
    demo,
    info,
    mosaic,
    encode,
    segment,
    everything,
    vectorize,
    evaluate,
    export,
    import_labels,
    train,
    check,
    models,
    serve,
):
    main.add_command(command)
