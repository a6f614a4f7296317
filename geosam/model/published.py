"""Networks filled with weights that others publish, under names of their own."""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from geosam.model.weights import check_weights, write_weights

Network = TypeVar("Network", bound=nn.Module)

Names: TypeAlias = Callable[[str], tuple[str, ...]]
"""From a tensor of ours to the published ones: one, or those of its rows."""

Rules: TypeAlias = Iterable[tuple[str, str]]
"""Patterns with their replacements. All that match apply, in order."""


def filled(
    network: Network, weights: Mapping[str, Tensor], names: Names, path: Path, model: str
) -> Network:
    """A network of no numbers yet, with the tensors that `names` finds for it, in single precision.

    Raises:
        WeightsError: keys or shapes differ from the network's, or there is a NaN.
    """
    check_weights(path, weights, published_shapes(network, names), model)
    state = {
        key: _joined([weights[name] for name in names(key)]).view(value.shape).float()
        for key, value in network.state_dict().items()
    }
    network.load_state_dict(state, assign=True)
    return network


def save_published(network: nn.Module, names: Names, path: Path) -> None:
    """Write a network's weights as safetensors under published names, in single precision."""
    weights = {}
    for key, value in network.state_dict().items():
        own = names(key)
        for name, part in zip(own, value.chunk(len(own)), strict=True):
            weights[name] = part.reshape(_shape(value, own)).float().cpu().contiguous()
    write_weights(weights, path)


def published_shapes(network: nn.Module, names: Names) -> dict[str, torch.Size]:
    """The shapes of a network's published tensors, under the names that `names` gives them."""
    own = network.state_dict()
    return {name: _shape(value, names(key)) for key, value in own.items() for name in names(key)}


def rename(key: str, rules: Rules) -> str:
    """A name after replacements by regular expressions; all that match apply, in order."""
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def _shape(value: Tensor, names: tuple[str, ...]) -> torch.Size:
    """Shape of each of the published tensors that make up one of ours: embeddings have rows."""
    if value.ndim == 1 and names[0].endswith("_embed.weight"):
        return torch.Size((1, *value.shape))
    return torch.Size((len(value) // len(names), *value.shape[1:]))


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)  # gigabytes are not copied
