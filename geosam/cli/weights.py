"""Commands about models."""

import json

import click

from geosam.cli.shared import data_errors, json_option, load


@click.group()
def models() -> None:
    """List the models that geosam knows."""


@models.command("list")
@json_option
@data_errors
def list_models(*, as_json: bool) -> None:
    """List the models by name.

    \b
    Examples:
      geosam models list
      geosam models list --json
    """
    from geosam.model import MODELS  # torch takes seconds

    rows = []
    for name in MODELS:
        model = load(name)
        rows.append({"name": name, "id": model.id, "tile_px": model.size, "weights": "embedded"})
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        for row in rows:
            click.echo("  ".join(str(value) for value in row.values()))
