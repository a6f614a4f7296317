"""SAM's prompt encoder: points and boxes as tokens, a rough mask added to the image.

Source: Kirillov et al. 2023, app. A; segment_anything/modeling/prompt_encoder.py.
"""

import torch
from torch import Tensor, nn

from geosam.model.config import Sam1Config, Sam2Config
from geosam.model.layers import LayerNorm2d
from geosam.model.prompt_encoder import PointEncoder, Prompts


class Sam1PromptEncoder(PointEncoder):
    """Points and boxes to sparse tokens, masks to an addition to the image embedding."""

    def __init__(self, config: Sam1Config | Sam2Config) -> None:
        super().__init__(config)
        width = config.mask_width
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, width // 4, 2, stride=2),
            LayerNorm2d(width // 4),
            nn.GELU(),
            nn.Conv2d(width // 4, width, 2, stride=2),
            LayerNorm2d(width),
            nn.GELU(),
            nn.Conv2d(width, config.width, 1),
        )
        self.no_mask = nn.Parameter(torch.randn(config.width))

    def sparse(self, prompts: Prompts, origin: Tensor | None = None) -> Tensor:
        """Tokens (P, T, C): the points, then two corners of a box or, without one, a padding.

        A mask alone has no tokens at all: the padding accompanies points.
        """
        if prompts.boxes is None and prompts.points.shape[1] == 0:
            return prompts.points.new_zeros(len(prompts.points), 0, len(self.no_mask))
        return super().sparse(prompts, origin)

    def cells_code(self) -> Tensor:
        """Positional code of an image's cells, (1, N, C); the same for all images."""
        side = self.size // 16
        return self.image_code(side, side).flatten(2).mT.contiguous()  # (1, N, C)

    def addition(self, masks: Tensor) -> Tensor:
        """What masks (P, S/4, S/4) of logits add to the image embedding, (P, C, S/16, S/16).

        A prompt without one adds `no_mask` to each cell.
        """
        added: Tensor = self.mask_downscaling(masks[:, None])  # (P, C, S/16, S/16)
        return added
