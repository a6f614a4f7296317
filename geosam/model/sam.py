"""The whole network: image encoder, prompt encoder and mask decoder."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geosam.model.config import SamConfig, SkipConfig
from geosam.model.image_encoder import Features, NanoEncoder
from geosam.model.mask_decoder import MaskDecoder
from geosam.model.prompt_encoder import PromptEncoder, Prompts


class Sam(nn.Module):
    """A promptable segmentation network (Kirillov et al. 2023)."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = NanoEncoder(config)
        self.prompt_encoder = PromptEncoder(config)
        self.mask_decoder = MaskDecoder(config)

    def encode(self, images: Tensor) -> Features:
        """Images (B, 3, S, S), grey levels 0..255 -> Features."""
        features: Features = self.image_encoder(images)
        return features

    def decode(
        self,
        features: Features,
        prompts: Prompts,
        *,
        multimask: bool,
        origin: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Masks of P prompts on one image, or on P images when the features have batch P.

        Args:
            features: encoder output.
            prompts: P prompts in image px.
            multimask: three masks a prompt, else one.
            origin: (P, 2) px, place of a training crop in the model's full image.

        Returns:
            logits (P, M, S/4, S/4), foreground > 0, and predicted IoU (P, M).
        """
        height, width = features.embedding.shape[-2:]
        encoder = self.prompt_encoder
        logits, scores = self.mask_decoder(
            features,
            encoder.image_code(height, width, origin),
            encoder.sparse(prompts, origin),
            encoder.dense(prompts, 4 * height, 4 * width),
            multimask=multimask,
        )
        return logits, scores


class PackedEncoder(nn.Module):
    """An image encoder whose features are packed."""

    def __init__(self, image_encoder: NanoEncoder) -> None:
        super().__init__()
        self.image_encoder = image_encoder

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S), uint8 -> features (B, packed_channels, S/16, S/16)."""
        pixels = images.float().to(memory_format=torch.channels_last)
        return pack(self.image_encoder(pixels))


def pack(features: Features) -> Tensor:
    """All features folded to stride 16 by space-to-depth: (B, packed_channels, S/16, S/16)."""
    return torch.cat(
        [
            features.embedding,
            F.pixel_unshuffle(features.stride8, 2),  # (B, 4 * skip8, S/16, S/16)
            F.pixel_unshuffle(features.stride4, 4),  # (B, 16 * skip4, S/16, S/16)
        ],
        dim=1,
    )


def unpack(packed: Tensor, config: SkipConfig) -> Features:
    """The inverse of `pack`: single precision, channels last in memory, in one copy."""
    skip8, skip4 = config.skip_channels
    parts = torch.split(packed, [config.width, 4 * skip8, 16 * skip4], dim=1)
    return Features(*(_unfold(part, side) for part, side in zip(parts, (1, 2, 4), strict=True)))


def _unfold(packed: Tensor, side: int) -> Tensor:
    """Depth to space: (B, side**2 * C, h, w) -> (B, C, side * h, side * w)."""
    cells = torch.unflatten(packed, 1, (-1, side, side)).permute(0, 4, 2, 5, 3, 1)
    image = torch.empty(cells.shape, device=cells.device).copy_(cells)  # (B, h, side, w, side, C)
    return image.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)
