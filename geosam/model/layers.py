"""Layers that several parts of the network share."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geosam.model import kernels


def is_traced() -> bool:
    """Whether what is computed here is being recorded, for another engine to compute it."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


def layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, *, gelu: bool = False
) -> Tensor:
    """Normalise the last axis of x (..., C), and apply GELU if wanted."""
    if kernels.suit(x):
        return kernels.normalised(x, weight, bias, eps, gelu=gelu)
    x = F.layer_norm(x, x.shape[-1:], weight, bias, eps)
    return F.gelu(x) if gelu else x


class LayerNorm(nn.LayerNorm):
    """Layer normalisation over the last axis."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) in and out."""
        return layer_norm(x, self.weight, self.bias, self.eps)


class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of an image-like tensor (B, C, H, W)."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each pixel's channels; (B, C, H, W) in and out."""
        if is_traced():  # for an engine that would copy the image to move its axes
            x = x - x.mean(1, keepdim=True)
            x = x * torch.rsqrt((x * x).mean(1, keepdim=True) + self.eps)
            return x * self.weight[:, None, None] + self.bias[:, None, None]
        x = x.permute(0, 2, 3, 1)  # (B, H, W, C)
        x = layer_norm(x, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)  # (B, C, H, W)


class Neck(nn.Sequential):
    """An encoder's cells to the image embedding, normalised.

    Source: segment_anything/modeling/image_encoder.py.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 1, bias=False),
            LayerNorm2d(outputs),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            LayerNorm2d(outputs),
        )


class MLP(nn.Module):
    """Linear layers with an activation between them.

    Source: segment_anything/modeling/mask_decoder.py.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, depth: int) -> None:
        super().__init__()
        widths = [inputs, *[hidden] * (depth - 1), outputs]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)  # type: ignore[no-any-return]  # nn.Module is untyped
