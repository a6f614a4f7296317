"""`python -m geosam.training DATA OUT --steps N`: train nano from scratch, or go on."""

import logging
from pathlib import Path

import click
import torch

from geosam.training.train import Plan, train


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--steps", default=3_500, show_default=True, help="Optimizer steps in all.")
@click.option("--thaw", default=500, show_default=True, help="Step at which the trunk joins.")
@click.option("--images", default=8, show_default=True, help="Crops a step.")
@click.option("--rate", default=1e-3, show_default=True, help="Peak learning rate.")
@click.option("--start", type=click.Path(exists=True, path_type=Path), help="Earlier checkpoint.")
@click.option("--seed", default=1, show_default=True, help="Another one to go on from --start.")
@click.option("--threads", default=1, show_default=True, help="CPU threads.")
def main(  # noqa: PLR0913  # each is a thing people set
    data: Path,
    out: Path,
    steps: int,
    thaw: int,
    images: int,
    rate: float,
    start: Path | None,
    seed: int,
    threads: int,
) -> None:
    """Train nano on the scenes below DATA; the same line again resumes the run in OUT."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(threads)
    plan = Plan(steps=steps, thaw=thaw, images=images, rate=rate, seed=seed)
    train(plan, data, out, start=start)


main()
