"""Layers that several parts of the network share."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geosam.model import kernels

# A CPU's convolutions are quick where oneDNN makes them, torch's own are not.
CONVOLVES = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
IMAGES = 16  # from so many on, torch convolves by oneDNN, which is quick, on one thread too


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


def cell_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A linear layer for the many cells of images: (..., C) -> (..., C').

    A CPU adds the bias on the way in a convolution of 1 x 1 cells, where a product has it written
    first. `IMAGES` parts of the cells pass as so many images.
    """
    convolves = CONVOLVES and not (x.is_cuda or is_traced() or torch.compiler.is_compiling())
    if not convolves or x.shape[:-1].numel() % IMAGES:
        return F.linear(x, weight, bias)
    rows = x.reshape(IMAGES, 1, -1, x.shape[-1]).permute(0, 3, 1, 2)  # (16, C, 1, cells / 16)
    out = F.conv2d(rows, weight[..., None, None], bias).permute(0, 2, 3, 1)
    return out.reshape(*x.shape[:-1], -1)  # (..., C')


class CellLinear(nn.Linear):
    """A linear layer for the many cells of images."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C')."""
        return cell_linear(x, self.weight, self.bias)


class PointConv(nn.Conv2d):
    """A convolution of 1 x 1 px; torch has one that is as fast in half precision only."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__(inputs, outputs, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W), a pixel's channels together in memory."""
        if x.is_cuda or is_traced() or x.dtype != torch.float32:
            return super().forward(x)
        cells = cell_linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias)
        return cells.permute(0, 3, 1, 2)


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
            PointConv(inputs, outputs, bias=False),
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
