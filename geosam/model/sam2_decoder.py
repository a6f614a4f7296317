"""SAM 2's prompt encoder and mask decoder, as far as they differ from SAM's.

Sources: Ravi et al. 2024, app. D; sam2/modeling/sam/mask_decoder.py, prompt_encoder.py;
sam2/sam2_image_predictor.py. For images the reference makes points of a box, so that its tokens
are accompanied by a padding too. transformers adds two paddings to a mask that comes alone, where
the reference has no token at all; the reference is followed.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geosam.model.config import Sam2Config
from geosam.model.mask_decoder import MASKS
from geosam.model.one_image import OneImage, attend
from geosam.model.prompt_encoder import Prompts
from geosam.model.sam1_decoder import CellDecoder
from geosam.model.sam1_prompts import Sam1PromptEncoder

STABILITY_DELTA = 0.05  # a single mask is compared at this logit above and below 0,
STABLE = 0.98  # and is stable if its area changes no more than to this share


class Sam2PromptEncoder(Sam1PromptEncoder):
    """Points and boxes to sparse tokens, masks to an addition to the image embedding."""

    def sparse(self, prompts: Prompts, origin: Tensor | None = None) -> Tensor:
        """Tokens (P, T, C): the points, two corners of a box, and a padding if there are any."""
        tokens = super().sparse(prompts, origin)
        if prompts.boxes is None:
            return tokens
        return torch.cat([tokens, self.not_a_point.expand(len(tokens), 1, -1)], dim=1)


class Sam2MaskDecoder(CellDecoder):
    """Masks at stride 4 from prompts, an image embedding and finer features."""

    def __init__(self, config: Sam2Config) -> None:
        super().__init__(config)
        self.object_token = nn.Parameter(torch.randn(1, config.width))

    def look(self, image: OneImage, sparse: Tensor, own: Tensor | None) -> tuple[Tensor, Tensor]:
        """Prompts and image see each other, as in SAM; the token of the object is dropped.

        That token says whether the object is in the picture at all, which only matters in videos.
        """
        decoder = torch.cat([self.object_token, self.iou_token, self.mask_tokens])  # (6, C)
        tokens = torch.cat([decoder.expand(len(sparse), -1, -1), sparse], dim=1)  # (P, 6+T, C)
        tokens, cells = attend(self.transformer, image, tokens, own)
        return tokens[:, 1:], cells

    def estimates(self, tokens: Tensor) -> Tensor:
        """Predicted IoU (P, 4): of the single mask, then of the three."""
        estimates: Tensor = self.iou_head(tokens[:, 0])
        return estimates.sigmoid()

    def answer(
        self,
        tokens: Tensor,
        cells: Tensor,
        skips: tuple[Tensor, Tensor],
        estimates: Tensor,
        *,
        multimask: bool,
    ) -> tuple[Tensor, Tensor]:
        """Masks with their scores.

        Args:
            tokens: (P, 5+T, C).
            cells: (P, N, C).
            skips: finer features of each cell, (N, 4, C/4) and (N, 4, 4, C/8).
            estimates: (P, 4), of the masks.
            multimask: three masks, else the single one, or the best of the three where the single
                one is not stable.

        Returns:
            logits (P, M, 4h, 4w) and scores (P, M).
        """
        stride8, stride4 = skips
        x = self.norm_gelu(self.upscale8(cells) + stride8)  # (P, N, 4, C/4)
        x = F.gelu(self.upscale4(x) + stride4)  # (P, N, 4, 4, C/8)
        if multimask:
            return self.draw(tokens, x, range(1, MASKS)), estimates[:, 1:]
        logits = self.draw(tokens, x, range(MASKS))  # (P, 4, 4h, 4w)
        best = 1 + estimates[:, 1:].argmax(1)  # (P,)
        chosen = torch.where(is_stable(logits[:, 0]), 0, best)  # (P,)
        rows = torch.arange(len(chosen), device=chosen.device)
        return logits[rows, chosen][:, None], estimates[rows, chosen][:, None]


def is_stable(logits: Tensor) -> Tensor:
    """Whether masks (P, h, w) hardly change when the threshold is moved, (P,) bool."""
    inner = (logits > STABILITY_DELTA).sum((1, 2))  # (P,)
    outer = (logits > -STABILITY_DELTA).sum((1, 2))
    return (inner / outer >= STABLE) | (outer == 0)
