"""The nano image encoder: EfficientNet-Lite0 with a small feature pyramid.

Source: Tan & Le 2019 (EfficientNet); tensorflow/tpu efficientnet/lite (no squeeze-excite, ReLU6,
"same" padding). The frozen BatchNorms of the ImageNet weights are folded into the convolutions,
so there is none here; `geosam.model.training.imagenet` does the folding.
"""

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from geosam.model.config import SamConfig
from geosam.model.layers import LayerNorm2d, PointConv, is_traced

# (repeats, kernel, stride, expansion, output channels) of each stage of EfficientNet-Lite0.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM_CHANNELS = 32


class Features(NamedTuple):
    """Encoder output at three strides."""

    embedding: Tensor  # (B, width, S/16, S/16)
    stride8: Tensor  # (B, skip_channels[0], S/8, S/8)
    stride4: Tensor  # (B, skip_channels[1], S/4, S/4)


class SameConv(nn.Conv2d):
    """Convolution with TensorFlow's "same" padding: for stride 2 the extra px goes right, below.

    With a row and a column of zeros before the kernel that is plain padding, which spares a copy of
    the image. It pays where a kernel has one channel only, and not in an engine that reads a trace
    and pads without a copy.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', ceil(H / stride), ceil(W / stride)); H, W multiples of stride."""
        kernel, pad = self.kernel_size[0], self.kernel_size[0] - self.stride[0]
        if self.stride[0] > 1 and self.groups > 1 and not is_traced():
            weight = F.pad(self.weight, (1, 0, 1, 0))  # (C, 1, k + 1, k + 1)
            return F.conv2d(x, weight, self.bias, self.stride, kernel // 2, 1, self.groups)
        if self.stride[0] > 1:
            x = F.pad(x, (pad // 2, pad - pad // 2) * 2)  # (B, C, H + pad, W + pad)
            return F.conv2d(x, self.weight, self.bias, self.stride, 0, 1, self.groups)
        return F.conv2d(x, self.weight, self.bias, 1, pad // 2, 1, self.groups)


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise k x k, project 1x1; a residual where shapes allow."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = PointConv(inputs, hidden) if expansion > 1 else None
        self.depthwise = SameConv(hidden, hidden, kernel, stride, groups=hidden)
        self.project = PointConv(hidden, outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        y: Tensor = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        y = self.project(F.relu6(self.depthwise(y), inplace=True))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """The trunk; returns the features at strides 4, 8, 16 and 32 (24, 40, 112, 320 channels)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(3, STEM_CHANNELS, 3, 2)
        self.stages = nn.ModuleList()
        inputs = STEM_CHANNELS
        for repeats, kernel, stride, expansion, outputs in STAGES:
            blocks = [InvertedResidual(inputs, outputs, kernel, stride, expansion)]
            blocks += [
                InvertedResidual(outputs, outputs, kernel, 1, expansion) for _ in range(repeats - 1)
            ]
            self.stages.append(nn.Sequential(*blocks))
            inputs = outputs

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, S, S), scaled to -1..1 -> four maps at strides 4, 8, 16, 32."""
        x = F.relu6(self.stem(x), inplace=True)  # (B, 32, S/2, S/2)
        outputs = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return [outputs[i] for i in (1, 2, 4, 6)]


class NanoEncoder(nn.Module):
    """EfficientNet-Lite0 and a neck that gives SAM's stride-16 embedding and two finer skips.

    The trunk's outputs are normalised before the 1x1 convolutions: their spread is large enough
    to drown the prompts otherwise.
    """

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.trunk = EfficientNetLite0()
        channels4, channels8, channels16, channels32 = (STAGES[i][-1] for i in (1, 2, 4, 6))
        skip8, skip4 = config.skip_channels
        self.lateral32 = nn.Sequential(LayerNorm2d(channels32), PointConv(channels32, config.width))
        self.lateral16 = nn.Sequential(LayerNorm2d(channels16), PointConv(channels16, config.width))
        self.smooth16 = nn.Sequential(
            nn.GELU(),
            nn.Conv2d(config.width, config.width, 3, padding=1),
            LayerNorm2d(config.width),
        )
        self.lateral8 = nn.Sequential(LayerNorm2d(channels8), PointConv(channels8, skip8))
        self.lateral4 = nn.Sequential(LayerNorm2d(channels4), PointConv(channels4, skip4))

    def forward(self, images: Tensor) -> Features:
        """Images (B, 3, S, S), grey levels 0..255 -> Features."""
        pixels = ((images - 127.5) / 127.5).to(self.trunk.stem.weight.dtype)
        x4, x8, x16, x32 = self.trunk(pixels)
        top = F.interpolate(self.lateral32(x32), scale_factor=2.0, mode="nearest")
        embedding = self.smooth16(self.lateral16(x16) + top)  # (B, width, S/16, S/16)
        return Features(embedding, self.lateral8(x8), self.lateral4(x4))
