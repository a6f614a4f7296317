"""The part of an image in which a prompt is decoded.

A decoder's cost grows with the area it looks at, and most objects are small. So a prompt is decoded
in a square of half the image's side round it, and only an object that reaches the square's edge in
the whole image. The networks are trained on squares of both sizes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from geosam.protocol import Floats, TilePrompt

FILLS_AT_MOST = 0.95  # of the square's side, by a prompt decoded in it


@dataclass(frozen=True, slots=True)
class Focus:
    """A square of an image, px, its corner on the grid of the image embedding.

    Attributes:
        x: left edge.
        y: top edge.
        side: of the square.
        size: of the image.
    """

    x: int
    y: int
    side: int
    size: int

    @classmethod
    def whole(cls, size: int) -> Self:
        """The whole image."""
        return cls(0, 0, size, size)

    @classmethod
    def on(cls, prompt: TilePrompt, size: int) -> Self:
        """The square round a prompt, or the whole image for a large one."""
        side = size // 2
        corners = _extent(prompt)
        if not len(corners) or np.ptp(corners, axis=0).max() > FILLS_AT_MOST * side:
            return cls.whole(size)
        middle = (corners.min(0) + corners.max(0)) / 2
        x, y = (np.rint((middle - side / 2) / 16) * 16).clip(0, size - side).astype(int).tolist()
        return cls(x, y, side, size)

    def cut(self, packed: Tensor) -> Tensor:
        """The packed features (1, C, H, W) within the square."""
        rows, cols = (slice(start // 16, (start + self.side) // 16) for start in (self.y, self.x))
        return packed[..., rows, cols]

    def shift(self, prompt: TilePrompt) -> TilePrompt:
        """A prompt of the image in the square's px."""
        corner = np.array([self.x, self.y], np.float32)
        rows, cols = self.cells
        return TilePrompt(
            prompt.points - corner,
            prompt.labels,
            None if prompt.box is None else prompt.box - np.tile(corner, 2),
            None if prompt.mask is None else prompt.mask[rows, cols],
        )

    @property
    def cells(self) -> tuple[slice, slice]:
        """Rows and columns of the image's logits that the square covers."""
        rows, cols = (slice(start // 4, (start + self.side) // 4) for start in (self.y, self.x))
        return rows, cols

    def is_left_by(self, logits: Floats) -> bool:
        """Whether an object (h, w) reaches an edge of the square beyond which the image goes on."""
        inside = logits > 0
        end = self.size - self.side
        edges = (
            (self.x > 0, inside[:, 0]),
            (self.y > 0, inside[0]),
            (self.x < end, inside[:, -1]),
            (self.y < end, inside[-1]),
        )
        return any(open_ and bool(edge.any()) for open_, edge in edges)


def gather(foci: Sequence[Focus], images: Sequence[Tensor]) -> Tensor:
    """The packed features of each square in its image (1, C, H, W): (P, C, h, w).

    Of one whole image that all look at, once for all: (1, C, H, W).
    """
    if foci[0].side == foci[0].size and all(image is images[0] for image in images):
        return images[0]
    return torch.cat([focus.cut(image) for focus, image in zip(foci, images, strict=True)])


def _extent(prompt: TilePrompt) -> Floats:
    """Corners (N, 2), px, that span all that the prompt says of the object's place."""
    corners = [prompt.points]
    if prompt.box is not None:
        corners.append(prompt.box.reshape(2, 2))
    if prompt.mask is not None:
        cols, rows = (np.flatnonzero((prompt.mask > 0).any(axis)) for axis in (0, 1))
        if len(rows):
            ends = np.array([[cols[0], rows[0]], [cols[-1], rows[-1]]], np.float32)
            corners.append(ends * 4)
    extent: Floats = np.concatenate(corners)
    return extent
