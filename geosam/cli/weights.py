"""Commands about models."""

import json
from collections.abc import Sequence

import click

from geosam.cli.interruption import NOTHING, interruptible
from geosam.cli.shared import ModelChoice, ProgressLine, data_errors, json_option, report
from geosam.download import pull
from geosam.registry import PUBLISHED, names, published, state


@click.group()
def models() -> None:
    """List, fetch and check the models that geosam knows."""


@models.command("list")
@json_option
@interruptible(NOTHING)
@data_errors
def list_models(*, as_json: bool) -> None:
    """List the models by name: id, tile, megabytes, licence, and where their weights are.

    \b
    Examples:
      geosam models list
      geosam models list --json
    """
    from geosam.model import MODELS  # torch takes seconds

    rows = []
    for name, path in MODELS.items():
        model = ModelChoice(name).load()
        size_mb, tile_px = round(path.stat().st_size / 1e6, 1), model.size
        rows.append(
            {
                "name": name, "id": model.id, "tile_px": tile_px, "size_mb": size_mb,
                "licence": "see its model card", "weights": "embedded",
            }
        )  # fmt: skip
    for file in PUBLISHED.values():
        rows.append(
            {
                "name": file.name, "id": file.model_id, "tile_px": file.tile_px,
                "size_mb": round(file.size / 1e6, 1), "licence": file.licence,
                "weights": str(file.path) if file.path.exists() else "not fetched",
            }
        )  # fmt: skip
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    columns = zip(*(row.values() for row in rows), strict=True)
    widths = [max(len(str(value)) for value in column) for column in columns]
    for row in rows:
        cells = (f"{value!s:{width}}" for value, width in zip(row.values(), widths, strict=True))
        click.echo("  ".join(cells).rstrip())


@models.command("pull")
@click.argument("name")
@click.option("--mirror", help="Fetch from this folder URL. Default: GEOSAM_MIRROR, if it is set.")
@json_option
@interruptible("what has arrived is kept, and the same line again goes on from it")
@data_errors
def pull_model(name: str, mirror: str | None, *, as_json: bool) -> None:
    """Fetch the weights of model NAME and check them; the same line again goes on.

    They are kept in the folder GEOSAM_CACHE, by default that of the user's caches. Proxies are
    taken from HTTPS_PROXY. With GEOSAM_OFFLINE=1 nothing is ever fetched.

    \b
    Examples:
      geosam models pull sam-vit-b
      geosam models pull sam-vit-b --mirror https://mirror.example.com/sam
    """
    file = published(name)
    with ProgressLine("fetching byte") as progress:
        path = pull(file, mirror=mirror, progress=progress)
    report({"model": name, "id": file.model_id, "path": str(path)}, as_json=as_json)


@models.command("verify")
@click.argument("chosen", metavar="[NAME]...", nargs=-1)
@json_option
@interruptible(NOTHING)
@data_errors
def verify_models(chosen: Sequence[str], *, as_json: bool) -> None:
    """Read the fetched weights of the models NAME, or of all, and compare size and hash.

    Exits with 1 if a file is damaged, or one that was named is absent.

    \b
    Examples:
      geosam models verify
      geosam models verify sam-vit-b --json
    """
    with ProgressLine("checking byte") as progress:
        states = {file.name: state(file, progress) for file in names(chosen)}
    if states:
        report(states, as_json=as_json)
    elif as_json:
        click.echo("{}")
    bad = [name for name, found in states.items() if found != "ok"]
    if bad:
        file = published(bad[0])
        raise click.ClickException(
            f"{file.path}: {states[bad[0]]} (expected {file.size} bytes with sha256 {file.sha256})."
            f" Run `geosam models pull {bad[0]}`."
        )
