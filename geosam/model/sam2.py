"""SAM 2.1 for images (Ravi et al. 2024): image encoder, prompt encoder and mask decoder."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from geosam.model.config import Sam2Config
from geosam.model.hiera import HieraEncoder
from geosam.model.image_encoder import Features
from geosam.model.one_image import OneImage, cells_of
from geosam.model.prompt_encoder import Prompts
from geosam.model.sam import pack
from geosam.model.sam1 import Looked, normalised
from geosam.model.sam2_decoder import Sam2MaskDecoder, Sam2PromptEncoder


class Sam2Image(NamedTuple):
    """What the prompts on one image share. N is the number of cells."""

    embedding: Tensor  # (1, C, S/16, S/16)
    shared: OneImage
    skips: tuple[Tensor, Tensor]  # finer features of each cell, (N, 4, C/4) and (N, 4, 4, C/8)


class Sam2(nn.Module):
    """A promptable segmentation network; P prompts are decoded on one image."""

    def __init__(self, config: Sam2Config) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = HieraEncoder(config)
        self.prompt_encoder = Sam2PromptEncoder(config)
        self.mask_decoder = Sam2MaskDecoder(config)

    def cells_in(self, dtype: torch.dtype) -> None:
        """Set the precision of all that is done to the cells of images; tokens stay exact."""
        self.image_encoder.to(dtype)
        self.mask_decoder.cells_in(dtype)

    def encode(self, images: Tensor) -> Features:
        """Images (B, 3, S, S), grey levels 0..255 -> Features."""
        features: Features = self.image_encoder(normalised(images, self.image_encoder))
        return features

    def prepare(self, packed: Tensor, code: Tensor, *, lone: bool = False) -> Sam2Image:
        """What the prompts on one image, or a lone one, need of its packed features (batch 1).

        `code` is the prompt encoder's `cells_code`.
        """
        width, (skip8, skip4) = self.config.width, self.config.skip_channels
        parts = torch.split(packed, [width, 4 * skip8, 16 * skip4], dim=1)
        cells = cells_of(parts[0]).float() + self.prompt_encoder.no_mask  # (1, N, C)
        shared = OneImage.of(self.mask_decoder.transformer, cells, code, lone=lone)
        dtype = shared.cells.dtype
        skips = _parts8(parts[1]).float(), _parts4(parts[2]).float()  # float16 to bfloat16 is slow
        return Sam2Image(parts[0], shared, (skips[0].to(dtype), skips[1].to(dtype)))

    def look(self, image: Sam2Image, prompts: Prompts) -> Looked:
        """Let prompts and image see each other.

        Args:
            image: what `prepare` made of it.
            prompts: P of them.
        """
        own = None
        if prompts.masks is not None:
            changed = image.embedding + self.prompt_encoder.addition(prompts.masks)  # (P, C, h, w)
            own = changed.flatten(2).transpose(1, 2).contiguous()  # (P, N, C)
            own = own.to(image.shared.cells.dtype)
        sparse = self.prompt_encoder.sparse(prompts)
        return Looked(*self.mask_decoder.look(image.shared, sparse, own))


class PackedEncoder(nn.Module):
    """The image encoder for tiles, whose features are packed into one array."""

    def __init__(self, image_encoder: HieraEncoder) -> None:
        super().__init__()
        self.image_encoder = image_encoder

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S), uint8 -> features (B, packed_channels, S/16, S/16)."""
        return pack(self.image_encoder(normalised(images.float(), self.image_encoder)))


def _parts8(x: Tensor) -> Tensor:
    """Folded at stride 8 (1, C * 4, h, w) -> the four parts of each cell, (h * w, 4, C)."""
    x = torch.unflatten(x[0].flatten(1), 0, (-1, 4)).transpose(0, 1)  # (4, C, h*w)
    return torch.unflatten(x.flatten(0, 1).T.contiguous(), 1, (4, -1))  # matrices turn fastest


def _parts4(x: Tensor) -> Tensor:
    """Folded at stride 4 (1, C * 16, h, w) -> four parts of each of a cell's, (h * w, 4, 4, C)."""
    x = torch.unflatten(x[0].flatten(1), 0, (-1, 2, 2, 2, 2))  # (C, 2, 2, 2, 2, h*w)
    x = x.permute(1, 3, 2, 4, 0, 5).flatten(0, 4)  # (16 * C, h*w)
    return torch.unflatten(x.T.contiguous(), 1, (4, 4, -1))
