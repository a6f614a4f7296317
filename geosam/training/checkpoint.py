"""Checkpoints of training runs: each whole, or the one before."""

from pathlib import Path
from typing import Any

import torch

from geosam.drafts import draft


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write a state of tensors and plain values in place of an older one.

    Raises:
        OutputError: it cannot be written.
    """
    with draft(path) as place, place.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # torch's word for what the file said
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise
