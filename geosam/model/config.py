"""The sizes of a SAM network: one frozen value that determines every tensor shape."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SamConfig:
    """Shapes of a promptable segmentation network.

    Attributes:
        size: side of the square input image, px.
        width: channels of the image embedding, the prompt tokens and the transformer.
        skip_channels: channels of the stride-8 and the stride-4 features.
        heads: attention heads of the two-way transformer.
        depth: two-way blocks.
        mlp_width: hidden width of the transformer's MLP.
        attention_downsample: factor by which cross-attention narrows the width.
    """

    size: int
    width: int
    skip_channels: tuple[int, int]
    heads: int
    depth: int
    mlp_width: int
    attention_downsample: int = 2

    @property
    def grid(self) -> int:
        """Side of the image embedding, which has stride 16."""
        return self.size // 16

    @property
    def logits_size(self) -> int:
        """Side of the mask logits, which have stride 4."""
        return self.size // 4

    @property
    def packed_channels(self) -> int:
        """Channels of all features folded to stride 16 (space to depth)."""
        stride8, stride4 = self.skip_channels
        return self.width + 4 * stride8 + 16 * stride4


NANO = SamConfig(size=512, width=128, skip_channels=(32, 16), heads=4, depth=2, mlp_width=512)
