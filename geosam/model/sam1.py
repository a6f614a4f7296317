"""SAM as published (Kirillov et al. 2023): image encoder, prompt encoder and mask decoder.

MobileSAM (Zhang et al. 2023) is the same with another image encoder.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from geosam.model.config import Sam1Config, VitConfig
from geosam.model.one_image import OneImage, cells_of
from geosam.model.prompt_encoder import Prompts
from geosam.model.sam1_decoder import Sam1MaskDecoder
from geosam.model.sam1_prompts import Sam1PromptEncoder
from geosam.model.tiny_vit import TinyVitEncoder
from geosam.model.vit import VitEncoder
from geosam.protocol import FILL

MEAN = (123.675, 116.28, 103.53)  # grey levels of red, green, blue: ImageNet's
STD = (58.395, 57.12, 57.375)


class Looked(NamedTuple):
    """Prompts and image after they have seen each other."""

    tokens: Tensor  # (P, 5+T, C)
    cells: Tensor  # (P, N, C)


class Sam1(nn.Module):
    """A promptable segmentation network; P prompts are decoded on one image."""

    def __init__(self, config: Sam1Config) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = (
            VitEncoder(config.encoder, config.size, config.width)
            if isinstance(config.encoder, VitConfig)
            else TinyVitEncoder(config.encoder, config.width)
        )
        self.prompt_encoder = Sam1PromptEncoder(config)
        self.mask_decoder = Sam1MaskDecoder(config)

    def cells_in(self, dtype: torch.dtype) -> None:
        """Set the precision of all that is done to the cells of images; tokens stay exact."""
        self.image_encoder.to(dtype)
        self.mask_decoder.cells_in(dtype)

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S), grey levels 0..255 -> embeddings (B, C, S/16, S/16)."""
        embedding: Tensor = self.image_encoder(normalised(images, self.image_encoder))
        return embedding

    def prepare(self, embedding: Tensor, code: Tensor, *, lone: bool = False) -> OneImage:
        """What the prompts on one image, or a lone one, need of its embedding (1, C, h, w).

        `code` is the prompt encoder's `cells_code`.
        """
        cells = cells_of(embedding).float() + self.prompt_encoder.no_mask  # (1, N, C)
        return OneImage.of(self.mask_decoder.transformer, cells, code, lone=lone)

    def look(self, embedding: Tensor, image: OneImage, prompts: Prompts) -> Looked:
        """Let prompts and image see each other.

        Args:
            embedding: (1, C, S/16, S/16) of the image.
            image: what `prepare` made of it.
            prompts: P of them.
        """
        own = None
        if prompts.masks is not None:
            changed = embedding + self.prompt_encoder.addition(prompts.masks)  # (P, C, h, w)
            own = changed.flatten(2).transpose(1, 2).contiguous()  # (P, N, C)
            own = own.to(image.cells.dtype)
        return Looked(*self.mask_decoder.look(image, self.prompt_encoder.sparse(prompts), own))


class TileEncoder(nn.Module):
    """The image encoder for tiles, which have `FILL` where there is no data."""

    def __init__(self, image_encoder: VitEncoder | TinyVitEncoder) -> None:
        super().__init__()
        self.image_encoder = image_encoder

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S), uint8 -> embeddings (B, C, S/16, S/16); `FILL` as exact mean."""
        fill, mean = (torch.tensor(v, device=images.device)[:, None, None] for v in (FILL, MEAN))
        empty = (images == fill).all(1, keepdim=True)  # (B, 1, S, S)
        pixels = torch.where(empty, mean, images.float())
        embedding: Tensor = self.image_encoder(normalised(pixels, self.image_encoder))
        return embedding


def normalised(images: Tensor, encoder: nn.Module) -> Tensor:
    """Grey levels 0..255 of images (B, 3, S, S) as the encoder takes them."""
    mean, std = (torch.tensor(v, device=images.device)[:, None, None] for v in (MEAN, STD))
    return ((images - mean) / std).to(next(encoder.parameters()).dtype)
