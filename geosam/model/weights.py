"""Weights in and out: every key and shape checked, named by their hash, never run as code."""

import hashlib
import pickle
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from geosam.errors import WeightsError

HASH_DIGITS = 8
TORCH_SUFFIXES = (".pth", ".pt")

Weights = dict[str, Tensor]

# What readers raise on files that are damaged or something else; torch's raises all but the second.
_UNREADABLE = (
    OSError, SafetensorError, pickle.UnpicklingError, EOFError, RuntimeError, ValueError, TypeError,
    LookupError, AttributeError, AssertionError, struct.error,
)  # fmt: skip


def read_weights(path: Path) -> tuple[Weights, str]:
    """The tensors in a file, whatever network they are of.

    Args:
        path: a .safetensors file, or a .pth or .pt file of torch's. Of the latter tensors alone are
            read: a pickle that would run code is refused.

    Returns:
        tensors by key, and the first digits of the file's sha256.

    Raises:
        WeightsError: the file is missing, damaged or holds something else.
    """
    in_torch = path.suffix in TORCH_SUFFIXES
    expected = "a file of tensors that torch saved" if in_torch else "a safetensors file"
    try:
        if in_torch:
            with warnings.catch_warnings():  # about pickles that it refuses right afterwards
                warnings.simplefilter("ignore")
                weights = torch.load(path, map_location="cpu", weights_only=True)
        else:
            weights = load_file(path)
        with path.open("rb") as file:
            digits = hashlib.file_digest(file, "sha256").hexdigest()[:HASH_DIGITS]
    except _UNREADABLE as error:
        reason = str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise WeightsError(
            f"{path}: {reason} (expected {expected}). Fetch or export the weights again."
        ) from error
    if isinstance(weights, dict) and weights.keys() == {"model"}:  # as Meta saves SAM 2
        weights = weights["model"]
    others = (
        [f"{key} is a {type(value).__name__}" for key, value in weights.items()
         if not isinstance(value, Tensor)]
        if isinstance(weights, dict)
        else [f"it is a {type(weights).__name__}"]
    )  # fmt: skip
    if others:
        raise WeightsError(
            f"{path}: {others[0]} (expected tensors by name). Export the state dict alone."
        )
    return weights, digits


def check_weights(
    path: Path, weights: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], model: str
) -> None:
    """Make sure that a file holds the tensors of a network, and that they are finite.

    Raises:
        WeightsError: keys or shapes differ, or there is a NaN; the first differences are named.
    """
    differences = [f"lacks {key}" for key in shapes.keys() - weights.keys()]
    differences += [f"has unknown {key}" for key in weights.keys() - shapes.keys()]
    differences += [
        f"{key} is {tuple(weights[key].shape)}, not {tuple(shapes[key])}"
        for key in shapes.keys() & weights.keys()
        if weights[key].shape != shapes[key]
    ]
    if differences:
        raise WeightsError(
            f"{path}: {'; '.join(sorted(differences)[:3])}; {len(differences)} differences in all "
            f"(expected the {len(shapes)} tensors of {model}). Name the model they belong to."
        )
    broken = [key for key, value in weights.items() if not torch.isfinite(value).all()]
    if broken:
        raise WeightsError(
            f"{path}: NaN or infinity in {broken[0]} (expected finite numbers). Fetch or export "
            "the weights again."
        )


def fill(network: nn.Module, weights: Mapping[str, Tensor], path: Path, model: str) -> None:
    """Overwrite a network's tensors, in their own precision, with those read from a file.

    Raises:
        WeightsError: they are of another network, or hold NaN.
    """
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    check_weights(path, weights, shapes, model)
    network.load_state_dict(weights)


def save_weights(network: nn.Module, path: Path) -> None:
    """Write a network's weights in half precision."""
    write_weights({k: v.half().contiguous() for k, v in network.state_dict().items()}, path)


def write_weights(weights: Weights, path: Path) -> None:
    """Write tensors as safetensors.

    Raises:
        OSError: they cannot be written.
    """
    try:
        save_file(weights, path)
    except SafetensorError as error:
        raise OSError(str(error)) from error
