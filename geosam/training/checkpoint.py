"""The checkpoint of a run: written whole or not at all, and gone on from by the same run alone."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from geosam.drafts import draft
from geosam.errors import TrainingError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

NAME = "checkpoint.pt"


def write(folder: Path, run: "DataclassInstance", state: Mapping[str, Any]) -> None:
    """Write the state of a run, at once, with all that determines it.

    Raises:
        OutputError: it cannot be written.
    """
    with draft(folder / NAME) as place, place.open("wb") as file:
        try:
            torch.save({"run": asdict(run), **state}, file)
        except RuntimeError as error:  # torch's word for what the file said
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise


def read(
    folder: Path, run: "DataclassInstance", device: torch.device | str = "cpu"
) -> dict[str, Any] | None:
    """The state of a run, or None if it has none yet.

    Raises:
        TrainingError: it is that of another run.
    """
    path = folder / NAME
    if not path.exists():
        return None
    saved: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    own = asdict(run)
    differing = [name for name, value in own.items() if saved.get("run", {}).get(name) != value]
    if differing:
        raise TrainingError(
            f"{path}: a run with other {', '.join(differing)} (expected the same, to go on with "
            f"it). Remove {folder}, or name another output."
        )
    return saved
