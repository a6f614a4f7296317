"""SAM's image encoder: a vision transformer with windows and relative positions.

Sources: Kirillov et al. 2023, "Segment Anything"; Li et al. 2022 (ViTDet), app. B; Li et al. 2022
(MViTv2), sec. 4.1; segment_anything/modeling/image_encoder.py. The results are the reference's;
the order of the work is not:

- Linear layers see the image's cells only. A window that juts out of the image is filled up with
  what the reference's zeros become there, the bias of the layer that makes queries, keys, values.
- The relative positions are an additive mask of fused attention, made for a bounded number of heads
  at a time, so that the memory does not grow with them. On a GPU a kernel adds them where the
  scores are made; where it cannot be used, they are further channels.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geosam.model import kernels
from geosam.model.config import VitConfig
from geosam.model.layers import CellLinear, LayerNorm, Neck, cell_linear

PATCH = 16
EPS = 1e-6
MASK_NUMBERS = 2**24  # of one additive mask: one head of a 1024-px image, 64 MB


class ImageAttention(nn.Module):
    """Attention among the cells of square windows, or of the whole image as one window."""

    def __init__(self, config: VitConfig, window: int) -> None:
        super().__init__()
        self.heads, self.window = config.heads, window
        self.qkv = CellLinear(config.width, 3 * config.width)
        self.proj = CellLinear(config.width, config.width)
        channels = config.width // config.heads
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * window - 1, channels))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * window - 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Cells (B, H, W, C) to the same."""
        if kernels.suit(x):
            out = kernels.attend(x, self.qkv, self.rel_pos_h, self.rel_pos_w, self.window)
            return self.proj(out)  # type: ignore[no-any-return]  # (B, H, W, C)
        batch, height, width, channels = x.shape
        side = self.window
        rows, cols = -(-height // side), -(-width // side)
        if (rows * side, cols * side) == (height, width):
            qkv = self.qkv(x)  # (B, H, W, 3C)
        else:
            qkv = cell_linear(x, self.qkv.weight, None)  # (B, H, W, 3C)
            edges = (0, 0, 0, cols * side - width, 0, rows * side - height)
            qkv = F.pad(qkv, edges).add_(self.qkv.bias)  # (B, rows * side, cols * side, 3C)
        qkv = qkv.view(batch, rows, side, cols, side, 3, self.heads, -1)
        q, k, v = qkv.permute(5, 0, 1, 3, 6, 2, 4, 7).flatten(1, 4)  # 3 x (windows, side, side, c)
        out = self._attend(q, k, v)  # (windows, side, side, c), one for each head too
        out = out.view(batch, rows, cols, self.heads, side, side, -1)
        out = out.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, rows * side, cols * side, channels)
        out = out[:, :height, :width].contiguous()  # (B, H, W, C)
        return self.proj(out)  # type: ignore[no-any-return]

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention within each of many windows, (windows, side, side, c) each, to the same."""
        attend = folded if q.is_cuda else masked
        return attend(q, k, v, self._table(self.rel_pos_h), self._table(self.rel_pos_w))

    def _table(self, rel_pos: Tensor) -> Tensor:
        """Rows for each pair of positions on one axis: (query, c, key)."""
        at = torch.arange(self.window, device=rel_pos.device)
        return rel_pos[at[:, None] - at + self.window - 1].transpose(1, 2)


def masked(q: Tensor, k: Tensor, v: Tensor, table_h: Tensor, table_w: Tensor) -> Tensor:
    """Attention within windows, with the relative positions as a mask: the way of a CPU.

    Args:
        q: (windows, side, side, c), as are k and v.
        k: the keys.
        v: the values.
        table_h: (side, c, side), the code of each pair of a query's and a key's row.
        table_w: the same of columns.

    Returns:
        (windows, side, side, c).
    """
    side, cells = q.shape[1], q.shape[1] ** 2
    steps = min(max(MASK_NUMBERS // cells**2, 1), len(q))
    buffer = q.new_empty(steps, side, side, side, side)  # fresh memory costs more than the sums
    parts = []
    for some in zip(*(torch.split(part, steps) for part in (q, k, v)), strict=True):
        by_row, by_col = _by_row_and_column(some[0], table_h, table_w)
        own = None if torch.jit.is_tracing() else buffer[: len(by_row)]  # type: ignore[attr-defined,no-untyped-call]
        mask = torch.add(by_row[..., None], by_col[..., None, :], out=own)
        out = F.scaled_dot_product_attention(
            some[0].flatten(1, 2)[:, None],
            some[1].flatten(1, 2)[:, None],
            some[2].flatten(1, 2)[:, None],
            attn_mask=mask.view(-1, 1, cells, cells),
        )  # (n, 1, cells, c)
        parts.append(out.view_as(some[0]))
    return torch.cat(parts)


def folded(q: Tensor, k: Tensor, v: Tensor, table_h: Tensor, table_w: Tensor) -> Tensor:
    """What `masked` gives, with the relative positions as channels: the way of a GPU.

    A query's scores for each row and column join its channels, and a key says by ones and zeros
    which row and column it is in. That is more arithmetic and no mask in memory. Values are filled
    up with zeros, because the fastest kernels want equal widths.
    """
    windows, side, _, channels = q.shape
    here = torch.eye(side, dtype=q.dtype, device=q.device)
    rows = here[:, None].expand(windows, side, side, side)
    cols = here[None].expand(windows, side, side, side)
    scaled = q * float(channels**-0.5)
    wide = (
        torch.cat([scaled, *_by_row_and_column(q, table_h, table_w)], dim=-1),
        torch.cat([k, rows, cols], dim=-1),
        F.pad(v, (0, 2 * side)),
    )  # each (windows, side, side, c + 2 * side)
    q, k, v = (part.flatten(1, 2)[:, None] for part in wide)  # (windows, 1, cells, c + 2 * side)
    out = F.scaled_dot_product_attention(q, k, v, scale=1.0)
    return out[..., :channels].reshape(windows, side, side, channels)


def _by_row_and_column(q: Tensor, table_h: Tensor, table_w: Tensor) -> tuple[Tensor, Tensor]:
    """Scores of queries (n, side, side, c) for the rows and the columns of keys, each the same."""
    return q @ table_h, (q.transpose(1, 2) @ table_w).transpose(1, 2)  # (n, side, side, side)


class VitBlock(nn.Module):
    """Attention and an MLP, each on normalised cells and with a residual."""

    def __init__(self, config: VitConfig, window: int) -> None:
        super().__init__()
        self.norm1 = LayerNorm(config.width, eps=EPS)
        self.attn = ImageAttention(config, window)
        self.norm2 = LayerNorm(config.width, eps=EPS)
        self.mlp = nn.Sequential(
            CellLinear(config.width, config.mlp_width),
            nn.GELU(),
            CellLinear(config.mlp_width, config.width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Cells (B, H, W, C) to the same."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class PatchEmbedding(nn.Conv2d):
    """A convolution whose kernel is its stride: a product with one row a patch."""

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) to cells (B, S/16, S/16, C)."""
        batch, bands, height, width = images.shape
        patches = images.view(batch, bands, height // PATCH, PATCH, width // PATCH, PATCH)
        patches = patches.permute(0, 2, 4, 1, 3, 5).flatten(3)  # (B, h, w, 3 * 16 * 16)
        return cell_linear(patches, self.weight.flatten(1), self.bias)  # (B, h, w, C)


class VitEncoder(nn.Module):
    """Images to an embedding at stride 16."""

    def __init__(self, config: VitConfig, size: int, outputs: int) -> None:
        super().__init__()
        grid = size // PATCH
        self.patch_embed = PatchEmbedding(3, config.width, PATCH, stride=PATCH)
        self.pos_embed = nn.Parameter(torch.zeros(1, grid, grid, config.width))
        self.blocks = nn.ModuleList(
            VitBlock(config, grid if i in config.looks_everywhere else config.window)
            for i in range(config.depth)
        )
        self.neck = Neck(config.width, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, S, S) -> (B, outputs, S/16, S/16)."""
        x = self.patch_embed(images) + self.pos_embed  # (B, h, w, C)
        for block in self.blocks:
            x = block(x)
        embedding: Tensor = self.neck(x.permute(0, 3, 1, 2))  # (B, outputs, h, w)
        return embedding
