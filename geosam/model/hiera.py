"""SAM 2's image encoder: a hierarchical vision transformer and a pyramid of features.

Sources: Ryali et al. 2023 (Hiera); Bolya et al. 2023 ("Window attention is bugged", the position
embedding); Ravi et al. 2024 (SAM 2), app. D; sam2/modeling/backbones/hieradet.py, image_encoder.py.
The results are the reference's; the order of the work is not:

- Linear layers see the image's cells only. A window that juts out of the image is filled up with
  what the reference's zeros become there, the bias of the layer that makes queries, keys, values.
- Nothing stands between the pyramid's finer maps and the projections that the mask decoder begins
  with, so both are one product, and no map of full width is made.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geosam.model.config import HieraConfig, Sam2Config
from geosam.model.image_encoder import Features
from geosam.model.layers import CellLinear, LayerNorm, cell_linear

EPS = 1e-6


class WindowAttention(nn.Module):
    """Attention among the cells of square windows; queries may be pooled 2 x 2 to their maxima."""

    def __init__(self, inputs: int, outputs: int, heads: int, window: int, *, pool: bool) -> None:
        super().__init__()
        self.heads, self.channels = heads, outputs // heads
        self.window, self.pool = window, pool
        self.qkv = CellLinear(inputs, 3 * outputs)
        self.proj = CellLinear(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Cells (B, H, W, inputs) -> (B, H, W, outputs), or (B, H/2, W/2, outputs) if pooled."""
        batch, height, width, _ = x.shape
        rows, cols, side = -(-height // self.window), -(-width // self.window), self.window
        qkv = self.qkv(x)  # (B, H, W, 3 * outputs)
        if self.pool:
            q, kv = qkv.tensor_split([self.proj.in_features], dim=-1)
            bias_q, bias_kv = self.qkv.bias.tensor_split([self.proj.in_features])
            k, v = self._windows(kv, bias_kv, rows, cols, side)
            q, height, width, side = pooled(q), height // 2, width // 2, side // 2
            (q,) = self._windows(q, bias_q, rows, cols, side)
        else:
            q, k, v = self._windows(qkv, self.qkv.bias, rows, cols, side)
        out = F.scaled_dot_product_attention(q, k, v)  # (B * windows, heads, side * side, c)
        out = out.transpose(1, 2).reshape(batch, rows, cols, side, side, -1)
        out = out.transpose(2, 3).reshape(batch, rows * side, cols * side, -1)
        out = out[:, :height, :width].contiguous()  # (B, H, W, C)
        return self.proj(out)  # type: ignore[no-any-return]

    def _windows(self, x: Tensor, padding: Tensor, rows: int, cols: int, side: int) -> list[Tensor]:
        """Cells (B, H, W, n * C) -> n of (B * rows * cols, heads, side * side, c)."""
        batch, height, width, numbers = x.shape
        if (rows * side, cols * side) != (height, width):
            padded = padding.expand(batch, rows * side, cols * side, -1).clone()
            padded[:, :height, :width] = x
            x = padded  # (B, rows * side, cols * side, n * C)
        x = x.view(batch, rows, side, cols, side, numbers).transpose(2, 3)
        x = x.reshape(batch * rows * cols, side * side, -1, self.heads, self.channels)
        return [part.transpose(1, 2) for part in x.unbind(2)]


class HieraBlock(nn.Module):
    """Attention and an MLP, each on normalised cells and with a residual."""

    def __init__(self, inputs: int, outputs: int, heads: int, window: int, *, pool: bool) -> None:
        super().__init__()
        self.norm1 = LayerNorm(inputs, eps=EPS)
        self.attn = WindowAttention(inputs, outputs, heads, window, pool=pool)
        self.norm2 = LayerNorm(outputs, eps=EPS)
        self.mlp = nn.Sequential(
            CellLinear(outputs, 4 * outputs), nn.GELU(), CellLinear(4 * outputs, outputs)
        )
        self.proj = CellLinear(inputs, outputs) if pool else None

    def forward(self, x: Tensor) -> Tensor:
        """Cells (B, H, W, inputs) -> (B, H, W, outputs), or (B, H/2, W/2, outputs) if pooled."""
        normed = self.norm1(x)
        x = (x if self.proj is None else pooled(self.proj(normed))) + self.attn(normed)
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class Hiera(nn.Module):
    """The trunk; returns the cells at the end of each stage."""

    def __init__(self, config: HieraConfig, size: int) -> None:
        super().__init__()
        width, heads, window = config.width, config.heads, config.windows[0]
        self.grid = size // 4
        self.patch_embed = nn.Conv2d(3, width, 7, stride=4, padding=3)
        self.pos_embed = nn.Parameter(torch.zeros(1, width, config.background, config.background))
        self.pos_embed_window = nn.Parameter(torch.zeros(1, width, window, window))
        self.blocks = nn.ModuleList()
        self.ends = []
        inputs, grid = width, self.grid
        for stage, depth in enumerate(config.depths):
            for i in range(depth):
                pool = stage > 0 and i == 0
                everywhere = len(self.blocks) in config.looks_everywhere
                side = grid if everywhere else config.windows[stage - pool]
                self.blocks.append(
                    HieraBlock(inputs, width << stage, heads << stage, side, pool=pool)
                )
                inputs, grid = width << stage, grid // 2 if pool else grid
            self.ends.append(len(self.blocks) - 1)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images (B, 3, S, S) -> cells (B, s, s, C) at strides 4, 8, 16 and 32."""
        x = self.patch_embed(images).permute(0, 2, 3, 1).contiguous()  # (B, S/4, S/4, C)
        x = x + self._positions()
        stages = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.ends:
                stages.append(x)
        return stages

    def _positions(self) -> Tensor:
        """Position embedding (S/4, S/4, C): a coarse one, and one that each window repeats.

        The coarse one is spread bicubically, along each axis by one product.
        """
        coarse = self.pos_embed[0].float().permute(1, 2, 0)  # (n, n, C)
        window = self.pos_embed_window[0].float().permute(1, 2, 0)  # (w, w, C)
        along = torch.eye(len(coarse), device=coarse.device)  # (n, n)
        along = F.interpolate(along[None, None], (self.grid, len(along)), mode="bicubic")[0, 0]
        coarse = torch.einsum("yi,ixc->yxc", along, coarse)  # (S/4, n, C)
        repeats = self.grid // len(window)
        both = along @ coarse + window.tile(repeats, repeats, 1)  # (S/4, S/4, C)
        return both.to(self.pos_embed.dtype)


class HieraEncoder(nn.Module):
    """The trunk and a pyramid that gives SAM's stride-16 embedding and two finer skips."""

    def __init__(self, config: Sam2Config) -> None:
        super().__init__()
        self.trunk = Hiera(config.encoder, config.size)
        width, (skip8, skip4) = config.width, config.skip_channels
        self.lateral4, self.lateral8, self.lateral16, self.lateral32 = (
            nn.Conv2d(config.encoder.width << stage, width, 1) for stage in range(4)
        )
        self.skip8 = nn.Conv2d(width, skip8, 1)
        self.skip4 = nn.Conv2d(width, skip4, 1)
        self.no_memory = nn.Parameter(torch.zeros(1, 1, width))

    def forward(self, images: Tensor) -> Features:
        """Normalised images (B, 3, S, S) -> Features."""
        x4, x8, x16, x32 = self.trunk(images)
        top = through(x32, self.lateral32)  # (B, S/32, S/32, width)
        top = top.repeat_interleave(2, 1).repeat_interleave(2, 2)  # (B, S/16, S/16, width)
        embedding = through(x16, self.lateral16) + top + self.no_memory
        return Features(
            *(
                cells.permute(0, 3, 1, 2)
                for cells in (
                    embedding,
                    through(x8, self.lateral8, self.skip8),  # (B, S/8, S/8, skip8)
                    through(x4, self.lateral4, self.skip4),  # (B, S/4, S/4, skip4)
                )
            )
        )


def pooled(x: Tensor) -> Tensor:
    """Maxima of 2 x 2 cells: (B, H, W, C) -> (B, H/2, W/2, C)."""
    x = torch.maximum(x[:, ::2], x[:, 1::2])  # (B, H/2, W, C)
    return torch.maximum(x[:, :, ::2], x[:, :, 1::2])


def through(x: Tensor, first: nn.Conv2d, *further: nn.Conv2d) -> Tensor:
    """Cells (B, H, W, C) through 1 x 1 convolutions, all of them as one product."""
    weight, bias = first.weight.flatten(1), first.bias  # (C', C), (C',)
    for convolution in further:
        own = convolution.weight.flatten(1)  # (C'', C')
        weight, bias = own @ weight, own @ bias + convolution.bias  # type: ignore[operator]
    return cell_linear(x, weight, bias)
