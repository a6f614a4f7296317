"""nano's image encoder once more, as its sources write it: step by step, without our shortcuts.

Source: Tan & Le 2019 (EfficientNet); tensorflow/tpu efficientnet/lite; segment_anything/modeling
for the normalisation of a pixel's channels.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from geosam.model.image_encoder import Features

STRIDES = (1, 2, 2, 2, 1, 2, 1)  # of the first block of each stage
TAKEN = (1, 2, 4, 6)  # stages whose outputs the neck takes


class PlainNano:
    """The encoder from a network's `image_encoder.` weights."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.weights = {
            key.removeprefix("image_encoder."): value.contiguous()
            for key, value in weights.items()
            if key.startswith("image_encoder.")
        }

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Features:
        """Images (B, 3, S, S), uint8 -> Features."""
        x = (images.float() - 127.5) / 127.5
        x = F.relu6(self.same(x, "trunk.stem", 2))
        taken = []
        for stage, stride in enumerate(STRIDES):
            block = 0
            while (name := f"trunk.stages.{stage}.{block}") + ".project.weight" in self.weights:
                x = self.block(x, name, 1 if block else stride)
                block += 1
            if stage in TAKEN:
                taken.append(x)
        x4, x8, x16, x32 = taken
        top = self.lateral(x32, "lateral32").repeat_interleave(2, 2).repeat_interleave(2, 3)
        x = F.gelu(self.lateral(x16, "lateral16") + top)
        weight, bias = self.of("smooth16.1")
        embedding = self.norm(F.conv2d(x, weight, bias, padding=1), "smooth16.2")
        return Features(embedding, self.lateral(x8, "lateral8"), self.lateral(x4, "lateral4"))

    def of(self, name: str) -> tuple[Tensor, Tensor]:
        return self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]

    def same(self, x: Tensor, name: str, stride: int, groups: int = 1) -> Tensor:
        """TensorFlow's "same": as many outputs as inputs / stride, the odd px right and below."""
        weight, bias = self.of(name)
        pads = []
        for length in (x.shape[3], x.shape[2]):
            missing = (-(-length // stride) - 1) * stride + weight.shape[2] - length
            pads += [missing // 2, missing - missing // 2]
        return F.conv2d(F.pad(x, pads), weight, bias, stride, groups=groups)

    def block(self, x: Tensor, name: str, stride: int) -> Tensor:
        y = x
        if f"{name}.expand.weight" in self.weights:
            y = F.relu6(F.conv2d(y, *self.of(f"{name}.expand")))
        y = F.relu6(self.same(y, f"{name}.depthwise", stride, groups=y.shape[1]))
        y = F.conv2d(y, *self.of(f"{name}.project"))
        return x + y if x.shape == y.shape else y

    def lateral(self, x: Tensor, name: str) -> Tensor:
        return F.conv2d(self.norm(x, f"{name}.0"), *self.of(f"{name}.1"))

    def norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self.of(name)
        mean = x.mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt((x - mean).square().mean(1, keepdim=True) + 1e-6)
        return weight[:, None, None] * x + bias[:, None, None]
