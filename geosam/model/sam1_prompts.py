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

    def addition(self, masks: Tensor | None) -> Tensor:
        """What is added to the image embedding.

        Args:
            masks: (P, S/4, S/4) logits, or None for prompts without.

        Returns:
            (P, C, S/16, S/16), or (1, C, 1, 1), the same for all prompts, without masks.
        """
        if masks is None:
            return self.no_mask[None, :, None, None]
        added: Tensor = self.mask_downscaling(masks[:, None])  # (P, C, S/16, S/16)
        return added
