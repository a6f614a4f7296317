"""The sizes of the networks: one frozen value determines every tensor shape of one."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoWayConfig:
    """Shapes of what every decoder here shares: prompt tokens and the two-way transformer.

    Attributes:
        size: side of the square input image, px.
        width: channels of the image embedding, the prompt tokens and the transformer.
        heads: attention heads of the two-way transformer.
        depth: two-way blocks.
        mlp_width: hidden width of the transformer's MLP.
        attention_downsample: factor by which cross-attention narrows the width.
    """

    size: int
    width: int
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SkipConfig(TwoWayConfig):
    """Shapes of networks with finer features beside the image embedding.

    Attributes:
        skip_channels: channels of the stride-8 and the stride-4 features.
    """

    skip_channels: tuple[int, int]

    @property
    def packed_channels(self) -> int:
        """Channels of all features folded to stride 16 (space to depth)."""
        stride8, stride4 = self.skip_channels
        return self.width + 4 * stride8 + 16 * stride4


@dataclass(frozen=True, slots=True, kw_only=True)
class SamConfig(SkipConfig):
    """Shapes of nano."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VitConfig:
    """Shapes of a plain vision transformer with windows.

    Attributes:
        width: channels.
        depth: blocks.
        heads: attention heads.
        looks_everywhere: the blocks, from 0, whose attention is global; the others' is windowed.
        window: side of a window, cells.
    """

    width: int
    depth: int
    heads: int
    looks_everywhere: tuple[int, ...]
    window: int = 14

    @property
    def mlp_width(self) -> int:
        """Hidden width of a block's MLP."""
        return 4 * self.width


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyVitConfig:
    """Shapes of TinyViT, whose first stage convolves and whose other three attend in windows.

    Attributes:
        widths: channels of each stage.
        depths: blocks of each stage.
        heads: attention heads of the last three stages.
        windows: side of their windows, cells.
    """

    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    heads: tuple[int, int, int]
    windows: tuple[int, int, int]

    @property
    def width(self) -> int:
        """Channels of the last stage."""
        return self.widths[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sam1Config(TwoWayConfig):
    """Shapes of SAM as published (Kirillov et al. 2023), or with a smaller image encoder.

    Attributes:
        encoder: the image encoder.
        mask_width: channels inside the encoder of mask prompts.
    """

    encoder: VitConfig | TinyVitConfig
    size: int = 1024
    width: int = 256
    heads: int = 8
    depth: int = 2
    mlp_width: int = 2048
    mask_width: int = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class HieraConfig:
    """Shapes of a hierarchical vision transformer with windows; four stages at strides 4 to 32.

    Attributes:
        width: channels of the first stage; each further stage doubles channels and heads.
        heads: attention heads of the first stage.
        depths: blocks of each stage.
        windows: side of a window in each stage, cells. The first block of a stage still has the
            windows of the stage before, whose cells it takes.
        looks_everywhere: the blocks, from 0, whose attention is global.
        background: side of the coarse position embedding.
    """

    width: int
    heads: int
    depths: tuple[int, int, int, int]
    looks_everywhere: tuple[int, ...]
    windows: tuple[int, int, int, int] = (8, 4, 14, 7)
    background: int = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Sam2Config(SkipConfig):
    """Shapes of SAM 2.1 for images (Ravi et al. 2024).

    Attributes:
        encoder: the trunk of the image encoder.
        mask_width: channels inside the encoder of mask prompts.
    """

    encoder: HieraConfig
    size: int = 1024
    width: int = 256
    heads: int = 8
    depth: int = 2
    mlp_width: int = 2048
    mask_width: int = 16
    skip_channels: tuple[int, int] = (64, 32)


NANO = SamConfig(size=512, width=128, skip_channels=(32, 16), heads=4, depth=2, mlp_width=512)
VIT_B = Sam1Config(encoder=VitConfig(width=768, depth=12, heads=12, looks_everywhere=(2, 5, 8, 11)))
VIT_L = Sam1Config(
    encoder=VitConfig(width=1024, depth=24, heads=16, looks_everywhere=(5, 11, 17, 23))
)
VIT_H = Sam1Config(
    encoder=VitConfig(width=1280, depth=32, heads=16, looks_everywhere=(7, 15, 23, 31))
)
MOBILE_SAM = Sam1Config(
    encoder=TinyVitConfig(
        widths=(64, 128, 160, 320), depths=(2, 2, 6, 2), heads=(4, 5, 10), windows=(7, 14, 7)
    )
)
HIERA_TINY = Sam2Config(
    encoder=HieraConfig(width=96, heads=1, depths=(1, 2, 7, 2), looks_everywhere=(5, 7, 9))
)
HIERA_SMALL = Sam2Config(
    encoder=HieraConfig(width=96, heads=1, depths=(1, 2, 11, 2), looks_everywhere=(7, 10, 13))
)
HIERA_BASE_PLUS = Sam2Config(
    encoder=HieraConfig(
        width=112, heads=2, depths=(2, 3, 16, 3), looks_everywhere=(12, 16, 20), background=14
    )
)
HIERA_LARGE = Sam2Config(
    encoder=HieraConfig(
        width=144, heads=2, depths=(2, 6, 36, 4), looks_everywhere=(23, 33, 43),
        windows=(8, 4, 16, 8),
    )
)  # fmt: skip
