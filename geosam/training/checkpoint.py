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
    with draft(path) as place:
        try:
            torch.save(state, place)
        except RuntimeError as error:  # torch's way to say that the disk is full
            raise OSError(str(error)) from error
