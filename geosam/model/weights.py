"""Weights in and out: safetensors only, every key and shape checked, named by their hash."""

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import nn

from geosam.errors import WeightsError

HASH_DIGITS = 8


def load_weights(network: nn.Module, path: Path) -> str:
    """Fill a network with the weights in a file.

    Args:
        network: its tensors are overwritten in place, in their own precision.
        path: a safetensors file with the network's keys and shapes.

    Returns:
        The first digits of the file's sha256.

    Raises:
        WeightsError: the file is missing, damaged, of another network, or holds NaN.
    """
    try:
        data = path.read_bytes()
        weights = load(data)
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"{path}: {error} (expected a safetensors file). Fetch or export the weights again."
        ) from error
    own = network.state_dict()
    differences = [f"lacks {key}" for key in own.keys() - weights.keys()]
    differences += [f"has unknown {key}" for key in weights.keys() - own.keys()]
    differences += [
        f"{key} is {tuple(weights[key].shape)}, not {tuple(own[key].shape)}"
        for key in own.keys() & weights.keys()
        if own[key].shape != weights[key].shape
    ]
    if differences:
        raise WeightsError(
            f"{path}: {'; '.join(sorted(differences)[:3])}; {len(differences)} differences in all "
            f"(expected the {len(own)} tensors of this model). Name the model they belong to."
        )
    broken = [key for key, value in weights.items() if not torch.isfinite(value).all()]
    if broken:
        raise WeightsError(
            f"{path}: NaN or infinity in {broken[0]} (expected finite numbers). Fetch or export "
            "the weights again."
        )
    network.load_state_dict(weights)
    return hashlib.sha256(data).hexdigest()[:HASH_DIGITS]


def save_weights(network: nn.Module, path: Path) -> None:
    """Write a network's weights in half precision."""
    weights = {key: value.half().contiguous() for key, value in network.state_dict().items()}
    save_file(weights, path)
