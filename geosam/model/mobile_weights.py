"""MobileSAM's weights as its authors publish them.

Source of the names: MobileSAM mobile_sam/modeling/tiny_vit_sam.py. Outside the image encoder they
are Meta's.
"""

import re
from pathlib import Path

import torch

from geosam.model.config import MOBILE_SAM
from geosam.model.published import filled, published_shapes, rename
from geosam.model.sam1 import Sam1
from geosam.model.sam1_weights import meta_names
from geosam.model.weights import Weights, check_weights

MODEL = "MobileSAM"
MOBILE_MARK = "image_encoder.patch_embed.seq.0.c.weight"
EPS = 1e-5  # of BatchNorm

# TinyViT's classifier, and what training or the shape of a window determines.
_LEFT_ASIDE = re.compile(
    r"image_encoder\.(norm_head|head)\.|bn\.num_batches_tracked$|attn\.attention_bias_idxs$"
)
_NORM = ("bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
_FOLDED = re.compile(r"(image_encoder\..*(?:seq\.\d|conv\d?)\.)(weight|bias)")

# From geosam's names to the file's, as if its BatchNorms were folded.
_TO_MOBILE = (
    (r"stem\.", "patch_embed.seq."),
    (r"stages\.(\d)\.", r"layers.\1.blocks."),
    (r"merges\.(\d)\.", r"layers.\1.downsample."),
    (r"mlp\.0\.", "mlp.norm."),
    (r"mlp\.1\.", "mlp.fc1."),
    (r"mlp\.3\.", "mlp.fc2."),
)


def build_mobile_sam(weights: Weights, path: Path) -> Sam1:
    """MobileSAM's network, filled with published weights, in single precision.

    Args:
        weights: under their published names; those of TinyViT's classifier are left aside.
        path: where they come from, for messages.

    Raises:
        WeightsError: keys or shapes differ from the network's, or there is a NaN.
    """
    weights = {key: value for key, value in weights.items() if not _LEFT_ASIDE.search(key)}
    with torch.device("meta"):  # no numbers are made that would be overwritten
        network = Sam1(MOBILE_SAM)
    check_weights(path, weights, mobile_shapes(network), MODEL)
    return filled(network, _folded(weights), _names, path, MODEL)


def mobile_shapes(network: Sam1) -> dict[str, torch.Size]:
    """The shapes of a network's published tensors, without those that are left aside."""
    shapes = {}
    for name, shape in published_shapes(network, _names).items():
        conv = _FOLDED.fullmatch(name)
        if conv is None:
            shapes[name] = shape
        elif conv[2] == "weight":
            shapes[f"{conv[1]}c.weight"] = torch.Size((*shape, 1, 1)[:4])
        else:
            shapes.update({conv[1] + part: shape for part in _NORM})
    return shapes


def _names(key: str) -> tuple[str, ...]:
    """The published names for a tensor of `Sam1`, as if its BatchNorms were folded."""
    if key.startswith("image_encoder."):
        return (rename(key, _TO_MOBILE),)
    return meta_names(key)


def _folded(weights: Weights) -> Weights:
    """The weights with every BatchNorm folded into the convolution before it.

    The products are made in double precision and rounded once.
    """
    folded = dict(weights)
    for key in [key for key in weights if key.endswith(".c.weight")]:
        conv = key.removesuffix("c.weight")
        scale, shift, mean, variance = (folded.pop(conv + part).double() for part in _NORM)
        factor = scale / (variance + EPS).sqrt()  # (out,)
        weight = folded.pop(key).double() * factor[:, None, None, None]  # (out, in, h, w)
        folded[f"{conv}weight"] = weight.flatten(1) if weight.shape[2:] == (1, 1) else weight
        folded[f"{conv}bias"] = shift - mean * factor
    return folded
