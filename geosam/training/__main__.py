"""`python -m geosam.training DATA OUT --steps N`: train nano from scratch, or go on."""

import logging
from pathlib import Path

import click
import torch

from geosam.training.train import Plan, train


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--steps", type=int, help="Optimizer steps in all.")
@click.option("--minutes", type=float, help="That the run may take instead, start to end.")
@click.option("--thaw", default=500, show_default=True, help="Step at which the trunk joins.")
@click.option("--whole-trunk", is_flag=True, help="Its depthwise kernels and first layers too.")
@click.option(
    "--steady", is_flag=True, help="See every crop twice, moved; costs half as much again."
)
@click.option("--images", default=8, show_default=True, help="Crops a step.")
@click.option("--rate", default=1e-3, show_default=True, help="Peak learning rate.")
@click.option(
    "--start", type=click.Path(exists=True, path_type=Path), help="Weights or checkpoint."
)
@click.option("--seed", default=1, show_default=True, help="Another one to go on from --start.")
@click.option("--threads", default=1, show_default=True, help="CPU threads.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:N or auto.")
@click.option("--workers", default=1, show_default=True, help="Processes that make the crops.")
def main(  # noqa: PLR0913  # each is a thing people set
    data: Path,
    out: Path,
    steps: int | None,
    minutes: float | None,
    thaw: int,
    whole_trunk: bool,
    steady: bool,
    images: int,
    rate: float,
    start: Path | None,
    seed: int,
    threads: int,
    device: str,
    workers: int,
) -> None:
    """Train nano on the scenes below DATA; the same line again resumes the run in OUT."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(threads)
    if (steps is None) == (minutes is None):
        raise click.UsageError("Give --steps or --minutes: how long the run may take.")
    plan = Plan(
        steps=steps,
        minutes=minutes or 0.0,
        thaw=thaw,
        images=images,
        rate=rate,
        seed=seed,
        whole_trunk=whole_trunk,
        steady=steady,
    )
    train(plan, data, out, start=start, device=device, workers=workers)


main()
