"""MobileSAM's image encoder: TinyViT-5M, a small vision transformer of windows and convolutions.

Sources: Zhang et al. 2023, "Faster Segment Anything"; Wu et al. 2022, "TinyViT", sec. 3 and app. B;
MobileSAM mobile_sam/modeling/tiny_vit_sam.py. The results are the reference's; the order of the
work is not:

- The BatchNorms are folded into the convolutions before them when weights are loaded.
- A cell's channels lie side by side in memory ("channels last") from beginning to end, so that
  convolutions and attention read the same numbers without a copy; convolutions of one cell are
  linear layers.
- What widens cells for a moment does so for a band of rows at a time, whose numbers stay in a CPU's
  cache and need no fresh memory.
- Linear layers see the image's cells only. A window that juts out of the image is filled up with
  what the reference's zeros become there: the normalisation's bias, made queries, keys and values.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geosam.model.config import TinyVitConfig
from geosam.model.layers import CellLinear, LayerNorm, Neck

EXPANSION = 4  # hidden channels of convolutional blocks and MLPs, in widths
BAND_NUMBERS = 2**20  # of the widest cells that are made at a time, 4 MB


def rows_at_a_time(cells: Tensor, channels: int) -> int:
    """An even number of rows of cells (B, H, W, C) that, widened to `channels`, fit a CPU's cache.

    On a GPU it is all of them.
    """
    batch, height, width, _ = cells.shape
    return height if cells.is_cuda else max(BAND_NUMBERS // (2 * batch * width * channels), 1) * 2


class Depthwise(nn.Conv2d):
    """A convolution of 3 x 3 cells, each channel for itself."""

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__(channels, channels, 3, stride, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """Cells (B, H, W, C) -> (B, H / stride, W / stride, C)."""
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    def padded_above_and_below(self, x: Tensor) -> Tensor:
        """Cells (B, H + 2, W, C) -> (B, H / stride, W / stride, C)."""
        cells = x.permute(0, 3, 1, 2)  # (B, C, H + 2, W)
        out = F.conv2d(cells, self.weight, self.bias, self.stride, (0, 1), groups=self.groups)
        return out.permute(0, 2, 3, 1)


class ThreeConvs(nn.Module):
    """Widen each cell, look at its neighbours, and narrow it again."""

    def __init__(self, inputs: int, hidden: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = CellLinear(inputs, hidden)
        self.conv2 = Depthwise(hidden, stride)
        self.conv3 = CellLinear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Cells (B, H, W, inputs) -> (B, H / stride, W / stride, outputs).

        A band of h rows at a time, with the row above and the row below; beyond the image's edge
        the widened cells are 0.
        """
        height, hidden = x.shape[1], len(self.conv2.weight)
        rows = rows_at_a_time(x, hidden)
        bands = []
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            band = F.gelu(self.conv1(x[:, max(top - 1, 0) : bottom + 1]))
            if top == 0 or bottom == height:
                band = F.pad(band, (0, 0, 0, 0, int(top == 0), int(bottom == height)))
            band = F.gelu(self.conv2.padded_above_and_below(band))  # (B, h / stride, ..., hidden)
            bands.append(self.conv3(band))
        return torch.cat(bands, dim=1)


class ConvBlock(ThreeConvs):
    """An inverted residual block (MBConv) with an activation behind the sum."""

    def __init__(self, width: int) -> None:
        super().__init__(width, EXPANSION * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Cells (B, H, W, C) to the same."""
        return F.gelu(x + super().forward(x))


class WindowAttention(nn.Module):
    """Attention among the cells of square windows, with a learned bias for each distance."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.norm = LayerNorm(width)
        self.qkv = CellLinear(width, 3 * width)
        self.proj = CellLinear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window**2))

    def forward(self, x: Tensor) -> Tensor:
        """Cells (B, H, W, C) to the same."""
        batch, height, width, channels = x.shape
        side, cells = self.window, self.window**2
        rows, cols = -(-height // side), -(-width // side)
        qkv = self.qkv(self.norm(x))  # (B, H, W, 3C)
        if (rows * side, cols * side) != (height, width):
            padded = self.qkv(self.norm.bias).repeat(batch, rows * side, cols * side, 1)
            padded[:, :height, :width] = qkv
            qkv = padded  # (B, rows * side, cols * side, 3C)
        qkv = qkv.view(batch, rows, side, cols, side, -1).transpose(2, 3)
        qkv = qkv.reshape(batch * rows * cols, cells, self.heads, 3, -1)
        q, k, v = qkv.permute(3, 0, 2, 1, 4)  # 3 x (windows, heads, cells, c)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=self._bias())
        out = out.transpose(1, 2).reshape(batch, rows, cols, side, side, channels)
        out = out.transpose(2, 3).reshape(batch, rows * side, cols * side, channels)
        out = out[:, :height, :width].contiguous()  # (B, H, W, C)
        return self.proj(out)  # type: ignore[no-any-return]

    def _bias(self) -> Tensor:
        """What is added to the scores of each pair of a window's cells, (1, heads, cells, cells).

        The table has one number for each distance (rows, columns) between two cells, rows first.
        """
        at = torch.arange(self.window, device=self.attention_biases.device)
        apart = (at[:, None] - at).abs()  # (side, side)
        pairs = apart[:, None, :, None] * self.window + apart[:, None]  # (side, side, side, side)
        return self.attention_biases[:, pairs.view(self.window**2, -1)][None]


class TinyVitBlock(nn.Module):
    """Attention, a look at the neighbours and an MLP."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.attn = WindowAttention(width, heads, window)
        self.local_conv = Depthwise(width)
        self.mlp = nn.Sequential(
            LayerNorm(width),
            CellLinear(width, EXPANSION * width),
            nn.GELU(),
            CellLinear(EXPANSION * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Cells (B, H, W, C) to the same."""
        x = self.local_conv(x + self.attn(x))
        rows = rows_at_a_time(x, EXPANSION * x.shape[-1])
        return torch.cat([band + self.mlp(band) for band in torch.split(x, rows, dim=1)], dim=1)


class TinyVitEncoder(nn.Module):
    """Images to an embedding at stride 16."""

    def __init__(self, config: TinyVitConfig, outputs: int) -> None:
        super().__init__()
        first, *others = config.widths
        self.stem = nn.Sequential(
            nn.Conv2d(3, first // 2, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(first // 2, first, 3, stride=2, padding=1),
        )
        self.stages = nn.ModuleList(
            [nn.Sequential(*(ConvBlock(first) for _ in range(config.depths[0])))]
        )
        for width, depth, heads, window in zip(
            others, config.depths[1:], config.heads, config.windows, strict=True
        ):
            blocks = (TinyVitBlock(width, heads, window) for _ in range(depth))
            self.stages.append(nn.Sequential(*blocks))
        strides = (2, 2, 1)  # TinyViT's last would be 2; SAM's embedding has stride 16
        self.merges = nn.ModuleList(
            ThreeConvs(inputs, width, width, stride)
            for inputs, width, stride in zip(config.widths[:-1], others, strides, strict=True)
        )
        self.neck = Neck(config.width, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, S, S) -> (B, outputs, S/16, S/16)."""
        x = self.stem(images.contiguous(memory_format=torch.channels_last))  # (B, C, S/4, S/4)
        x = self.stages[0](x.permute(0, 2, 3, 1))  # (B, S/4, S/4, C)
        for merge, stage in zip(self.merges, self.stages[1:], strict=True):
            x = stage(merge(x))  # (B, S/8, S/8, C), then twice (B, S/16, S/16, C)
        embedding: Tensor = self.neck(x.permute(0, 3, 1, 2))  # (B, outputs, S/16, S/16)
        return embedding
