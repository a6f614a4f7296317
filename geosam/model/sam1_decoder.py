"""SAM's mask decoder: tokens and the image embedding to mask logits and predicted IoU.

Source: Kirillov et al. 2023, app. A; segment_anything/modeling/mask_decoder.py. The scores are
known before the upscaling, which takes a good part of the time, so a caller may leave it out for
prompts whose masks it does not want.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geosam.model.config import TwoWayConfig
from geosam.model.layers import MLP, LayerNorm2d, cell_linear, layer_norm
from geosam.model.mask_decoder import MASKS
from geosam.model.one_image import OneImage, attend
from geosam.model.transformer import TwoWayTransformer


class Upscale(nn.Module):
    """A transposed convolution whose kernel is its stride, 2: a product with one row a cell."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs, 2, 2) / inputs**0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Channels of cells (..., inputs) -> those of each cell's four parts (..., 4, outputs)."""
        weight = self.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (4 * outputs, inputs)
        bias = self.bias.repeat(4)
        return torch.unflatten(cell_linear(x, weight, bias), -1, (4, -1))  # (..., 4, outputs)


class CellDecoder(nn.Module):
    """What SAM's and SAM 2's decoders have in common; cells are upscaled each for itself."""

    def __init__(self, config: TwoWayConfig) -> None:
        super().__init__()
        width = config.width
        self.grid = config.grid
        self.transformer = TwoWayTransformer(config)
        self.iou_token = nn.Parameter(torch.randn(1, width))
        self.mask_tokens = nn.Parameter(torch.randn(MASKS, width))
        self.upscale8 = Upscale(width, width // 4)
        self.norm8 = LayerNorm2d(width // 4)
        self.upscale4 = Upscale(width // 4, width // 8)
        self.hypernetworks = nn.ModuleList(MLP(width, width, width // 8, 3) for _ in range(MASKS))
        self.iou_head = MLP(width, width, MASKS, 3)

    def cells_in(self, dtype: torch.dtype) -> None:
        """Set the precision of what is done to cells; tokens stay as they are."""
        norms = [layer.norm4 for layer in self.transformer.layers]
        for part in (*norms, self.upscale8, self.norm8, self.upscale4):
            part.to(dtype)

    def norm_gelu(self, x: Tensor) -> Tensor:
        """Parts of cells (P, N, 4, C/4) at stride 8, normalised and activated."""
        norm = self.norm8
        return layer_norm(x, norm.weight, norm.bias, norm.eps, gelu=True)

    def draw(self, tokens: Tensor, parts: Tensor, masks: Iterable[int]) -> Tensor:
        """Parts of cells (P, N, 4, 4, C/8) at stride 4 to logits (P, M, 4h, 4w) of some masks."""
        weights = torch.stack(
            [self.hypernetworks[i](tokens[:, 1 + i]) for i in masks], dim=1
        )  # (P, M, C/8)
        logits = torch.bmm(weights.to(parts.dtype), parts.flatten(1, 3).mT)  # (P, M, N * 4 * 4)
        grid = self.grid
        split = logits.view(*weights.shape[:2], grid, grid, 2, 2, 2, 2)
        split = split.permute(0, 1, 2, 4, 6, 3, 5, 7)  # (P, M, h, 2, 2, w, 2, 2)
        image = torch.empty(split.shape, device=split.device)
        for row, col in ((0, 0), (0, 1), (1, 0), (1, 1)):  # long rows copy faster than pairs
            image[:, :, :, :, row, :, :, col] = split[:, :, :, :, row, :, :, col]
        return image.view(*weights.shape[:2], 4 * grid, 4 * grid)


class Sam1MaskDecoder(CellDecoder):
    """Masks at stride 4 from prompts and an image embedding."""

    def look(self, image: OneImage, sparse: Tensor, own: Tensor | None) -> tuple[Tensor, Tensor]:
        """Prompts and image see each other.

        Args:
            image: shared by the prompts.
            sparse: (P, T, C) tokens of the prompts.
            own: (P, N, C), the image's cells of each prompt, if they differ.

        Returns:
            tokens (P, 5+T, C) and cells (P, N, C).
        """
        decoder = torch.cat([self.iou_token, self.mask_tokens])  # (5, C)
        tokens = torch.cat([decoder.expand(len(sparse), -1, -1), sparse], dim=1)  # (P, 5+T, C)
        return attend(self.transformer, image, tokens, own)

    def scores(self, tokens: Tensor, *, multimask: bool) -> Tensor:
        """Predicted IoU (P, M) of the masks that the tokens stand for; M is 3 or 1."""
        scores: Tensor = self.iou_head(tokens[:, 0])[:, _wanted(multimask)]
        return scores

    def logits(self, tokens: Tensor, cells: Tensor, *, multimask: bool) -> Tensor:
        """Logits (P, M, 4h, 4w) of the masks, the object where they are above 0.

        Both upscalings have kernels as large as their stride, so they are products with one row a
        cell; only the finished logits are put in the order of an image.
        """
        x = self.norm_gelu(self.upscale8(cells))  # (P, N, 4, C/4)
        x = F.gelu(self.upscale4(x))  # (P, N, 4, 4, C/8)
        return self.draw(tokens, x, range(MASKS)[_wanted(multimask)])


def _wanted(multimask: bool) -> slice:
    return slice(1, MASKS) if multimask else slice(1)
