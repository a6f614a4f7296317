"""The mask decoder: tokens and image features to mask logits and predicted IoU.

Source: Kirillov et al. 2023, app. A; segment_anything/modeling/mask_decoder.py. Finer features
join during upscaling as in SAM 2 (Ravi et al. 2024).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geosam.model.config import SamConfig
from geosam.model.image_encoder import Features
from geosam.model.layers import MLP, LayerNorm2d
from geosam.model.one_image import attend_to
from geosam.model.prompt_encoder import DensePrompts
from geosam.model.transformer import TwoWayTransformer

MASKS = 4  # one for prompts that are clear, three for a single click


class MaskDecoder(nn.Module):
    """Masks at stride 4 from prompts and image features."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        width, (skip8, skip4) = config.width, config.skip_channels
        self.transformer = TwoWayTransformer(config)
        self.iou_token = nn.Parameter(torch.randn(1, width))
        self.mask_tokens = nn.Parameter(torch.randn(MASKS, width))
        self.upscale8 = nn.ConvTranspose2d(width, skip8, 2, stride=2)
        self.mix8 = nn.Sequential(
            LayerNorm2d(skip8), nn.ReLU(inplace=True), nn.Conv2d(skip8, skip8, 3, padding=1)
        )
        self.upscale4 = nn.ConvTranspose2d(skip8, skip4, 2, stride=2)
        self.mix4 = nn.Sequential(
            LayerNorm2d(skip4),
            nn.ReLU(inplace=True),
            nn.Conv2d(skip4, skip4, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.hypernetworks = nn.ModuleList(MLP(width, width, skip4, 3) for _ in range(MASKS))
        self.iou_head = MLP(width, width, MASKS, 3)

    def forward(
        self,
        features: Features,
        image_code: Tensor,
        sparse: Tensor,
        dense: DensePrompts,
        *,
        multimask: bool,
    ) -> tuple[Tensor, Tensor]:
        """Decode P prompts.

        Args:
            features: of the image, batch 1 (shared by all prompts) or P.
            image_code: (1 or P, C, h, w).
            sparse: (P, T, C).
            dense: maps of the prompts.
            multimask: three masks for an ambiguous prompt, else the single one.

        Returns:
            logits (P, M, 4h, 4w) and predicted IoU (P, M); M is 3 or 1.
        """
        own = torch.cat([self.iou_token, self.mask_tokens])  # (5, C)
        tokens = torch.cat([own.expand(len(sparse), -1, -1), sparse], dim=1)  # (P, 5+T, C)
        image = features.embedding + dense.embedding  # (P, C, h, w)
        height, width = image.shape[-2:]
        if torch.is_grad_enabled():  # the plain products have the faster backward pass
            tokens, image = self.transformer(image, image_code, tokens)  # (P, 5+T, C), (P, hw, C)
        else:
            cells, code = (x.flatten(2).transpose(1, 2) for x in (image, image_code))
            tokens, image = attend_to(self.transformer, cells, code, tokens)
        image = torch.unflatten(image.transpose(1, 2), 2, (height, width))  # (P, C, h, w)

        image = self.upscale8(image) + features.stride8 + dense.stride8  # (P, skip8, 2h, 2w)
        image = image + self.mix8(image)
        image = self.upscale4(F.relu(image)) + features.stride4 + dense.stride4
        image = self.mix4(image)  # (P, skip4, 4h, 4w)

        wanted = range(1, MASKS) if multimask else range(1)
        weights = torch.stack(
            [self.hypernetworks[i](tokens[:, 1 + i]) for i in wanted], dim=1
        )  # (P, M, skip4)
        logits = (weights @ image.flatten(2)).unflatten(2, image.shape[-2:])  # (P, M, 4h, 4w)
        scores = self.iou_head(tokens[:, 0])[:, wanted.start : wanted.stop]  # (P, M)
        return logits, scores
