"""Prompts as the decoder sees them: sparse tokens, and dense maps at three strides.

Sparse tokens follow Kirillov et al. 2023 (segment_anything/modeling/prompt_encoder.py): Fourier
codes of the coordinates plus a learned vector for the kind of point. The dense maps (clicks, the
filled box, the previous mask) are nano's own: they let a small decoder be trained on a CPU.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geosam.model.config import SamConfig, TwoWayConfig
from geosam.model.layers import LayerNorm2d

CLICK_SIGMA_PX = 5.0  # spread of the sharp click map
REACH_SIGMA_PX = 40.0  # spread of the wide click map
MAP_CHANNELS = 6  # clicks sharp and wide for foreground and background, box, mask


class Prompts(NamedTuple):
    """A batch of P prompts with the same number of points, in image px, pixel centres at 0.

    Attributes:
        points: (P, N, 2), N may be 0.
        labels: (P, N), 1 foreground, 0 background.
        boxes: (P, 4) or None.
        masks: (P, S/4, S/4) logits or None.
    """

    points: Tensor
    labels: Tensor
    boxes: Tensor | None
    masks: Tensor | None


class DensePrompts(NamedTuple):
    """Prompt features to be added to the image features of the same stride."""

    embedding: Tensor  # (P, width, S/16, S/16)
    stride8: Tensor  # (P, skip_channels[0], S/8, S/8)
    stride4: Tensor  # (P, skip_channels[1], S/4, S/4)


class FourierCode(nn.Module):
    """Random Fourier features of coordinates in [0, 1].

    Source: Tancik et al. 2020; PositionEmbeddingRandom in the reference.
    """

    gaussian: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("gaussian", torch.randn(2, width // 2))

    def forward(self, xy: Tensor) -> Tensor:
        """Coordinates (..., 2) in [0, 1] -> codes (..., width)."""
        angle = self._angle(xy[..., :1], 0) + self._angle(xy[..., 1:], 1)  # (..., width/2)
        return torch.cat([angle.sin(), angle.cos()], dim=-1)  # (..., width)

    def grid(self, x: Tensor, y: Tensor) -> Tensor:
        """Of columns (B, w) and rows (B, h) in [0, 1] -> codes of all cells (B, h, w, width).

        Sines and cosines are taken of columns and rows alone and put together by the theorem of
        sums.
        """
        across = self._angle(x[:, None, :, None], 0)  # (B, 1, w, width/2)
        down = self._angle(y[:, :, None, None], 1)  # (B, h, 1, width/2)
        sin, cos = across.sin(), across.cos()
        same, turned = torch.cat([sin, cos], -1), torch.cat([cos, -sin], -1)  # (B, 1, w, width)
        code = same * torch.cat([down.cos()] * 2, -1)  # (B, h, w, width)
        return torch.addcmul(code, turned, torch.cat([down.sin()] * 2, -1))  # (B, h, w, width)

    def _angle(self, along: Tensor, axis: int) -> Tensor:
        """What one coordinate (..., 1) adds to the angles (..., width/2)."""
        # In single precision, by no product of matrices, which autocast would round to half a px.
        return 2 * math.pi * (2 * along - 1).float() * self.gaussian[axis].float()


class PointEncoder(nn.Module):
    """Points and boxes to sparse tokens, and the positional code that they share with the image."""

    def __init__(self, config: TwoWayConfig) -> None:
        super().__init__()
        self.size = config.size
        self.code = FourierCode(config.width)
        self.point_embeddings = nn.Parameter(torch.randn(4, config.width))  # bg, fg, two corners
        self.not_a_point = nn.Parameter(torch.randn(config.width))

    def image_code(self, height: int, width: int, origin: Tensor | None = None) -> Tensor:
        """Positional code of the embedding's cells, (1 or B, C, height, width).

        Args:
            height: rows of the embedding.
            width: columns of the embedding.
            origin: (B, 2) px, where a training crop lies in the model's full image.
        """
        device = self.code.gaussian.device
        y = (torch.arange(height, device=device)[None] + 0.5) * 16  # (1, h)
        x = (torch.arange(width, device=device)[None] + 0.5) * 16  # (1, w)
        if origin is not None:
            x, y = x + origin[:, :1], y + origin[:, 1:]  # (B, w), (B, h)
        code: Tensor = self.code.grid(x / self.size, y / self.size)  # (1 or B, h, w, C)
        return code.permute(0, 3, 1, 2)  # (1 or B, C, h, w)

    def sparse(self, prompts: Prompts, origin: Tensor | None = None) -> Tensor:
        """Tokens (P, T, C): the points, then two corners of a box or, without one, a padding."""
        shift = 0.5 if origin is None else origin[:, None] + 0.5
        kinds = self.point_embeddings[prompts.labels.long()]  # (P, N, C)
        tokens = [self.code((prompts.points + shift) / self.size) + kinds]
        if prompts.boxes is None:
            tokens.append(self.not_a_point.expand(len(prompts.points), 1, -1))
        else:
            corners = prompts.boxes.reshape(-1, 2, 2)  # (P, 2, 2)
            tokens.append(self.code((corners + shift) / self.size) + self.point_embeddings[2:])
        return torch.cat(tokens, dim=1)  # (P, T, C)


class PromptEncoder(PointEncoder):
    """Points, boxes and masks to sparse tokens and dense maps."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__(config)
        skip8, skip4 = config.skip_channels
        self.maps4 = nn.Sequential(
            nn.Conv2d(MAP_CHANNELS, skip4, 3, padding=1), LayerNorm2d(skip4), nn.ReLU(inplace=True)
        )
        self.maps8 = nn.Sequential(
            nn.Conv2d(skip4, skip8, 2, stride=2), LayerNorm2d(skip8), nn.ReLU(inplace=True)
        )
        self.maps16 = nn.Sequential(
            nn.Conv2d(skip8, skip8, 3, padding=1),
            LayerNorm2d(skip8),
            nn.ReLU(inplace=True),
            nn.Conv2d(skip8, config.width, 2, stride=2),
        )

    def dense(self, prompts: Prompts, height: int, width: int) -> DensePrompts:
        """Maps for logits of (height, width), that is an image four times as large."""
        maps = draw_maps(prompts, height, width)
        stride4 = self.maps4(maps)  # (P, skip4, S/4, S/4)
        stride8 = self.maps8(stride4)  # (P, skip8, S/8, S/8)
        return DensePrompts(self.maps16(stride8), stride8, stride4)


def draw_maps(prompts: Prompts, height: int, width: int) -> Tensor:
    """Prompts drawn as six images (P, 6, height, width) at stride 4.

    Sharp and wide Gaussians of foreground and background clicks, the share of each cell that the
    box covers, and the previous mask's probability centred on 0.
    """
    device = prompts.points.device
    x = torch.arange(width, device=device) * 4 + 1.5  # cell centres, px
    y = torch.arange(height, device=device) * 4 + 1.5
    dx = x - prompts.points[..., :1]  # (P, N, w)
    dy = y - prompts.points[..., 1:]  # (P, N, h)
    maps = []
    for sigma in (CLICK_SIGMA_PX, REACH_SIGMA_PX):
        gx = torch.exp(-0.5 * (dx / sigma) ** 2)  # (P, N, w)
        gy = torch.exp(-0.5 * (dy / sigma) ** 2)  # (P, N, h)
        blobs = gy[..., None] * gx[..., None, :]  # (P, N, h, w)
        for label in (1, 0):
            chosen = blobs * (prompts.labels == label)[..., None, None]  # (P, N, h, w)
            maps.append(
                chosen.amax(1) if chosen.shape[1] else chosen.new_zeros(len(dx), height, width)
            )
    if prompts.boxes is None:
        maps.append(torch.zeros_like(maps[0]))
    else:
        xmin, ymin, xmax, ymax = (edge[:, None] for edge in prompts.boxes.unbind(1))  # (P, 1)
        cover_x = (torch.minimum(x + 2, xmax) - torch.maximum(x - 2, xmin)).clamp(0, 4) / 4
        cover_y = (torch.minimum(y + 2, ymax) - torch.maximum(y - 2, ymin)).clamp(0, 4) / 4
        maps.append(cover_y[:, :, None] * cover_x[:, None, :])  # (P, h, w)
    if prompts.masks is None:
        maps.append(torch.zeros_like(maps[0]))
    else:
        maps.append(2 * F.sigmoid(prompts.masks.float()) - 1)
    return torch.stack(maps, dim=1)  # (P, 6, h, w)
