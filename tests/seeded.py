"""Weights of which no tensor is degenerate, the same on every machine and torch version."""

import zlib
from collections.abc import Mapping

import numpy as np
import torch

from geosam.model.config import HieraConfig, Sam1Config, Sam2Config, TinyVitConfig, VitConfig
from geosam.model.mobile_weights import mobile_shapes
from geosam.model.published import published_shapes
from geosam.model.sam1 import Sam1
from geosam.model.sam1_weights import hugging_face_names, meta_names
from geosam.model.sam2 import Sam2
from geosam.model.sam2_weights import hugging_face_names_2, meta_names_2

TINY = Sam1Config(
    encoder=VitConfig(width=64, depth=4, heads=2, looks_everywhere=(1, 3)),
    size=256, width=64, heads=4, depth=2, mlp_width=128,
)  # fmt: skip  # 16 x 16 cells, so that windows of 14 jut out of the image
TINY_2 = Sam2Config(
    encoder=HieraConfig(width=16, heads=1, depths=(1, 2, 3, 2), looks_everywhere=(4,)),
    size=256, width=32, heads=4, depth=2, mlp_width=64, skip_channels=(8, 4),
)  # fmt: skip  # 16 x 16 and 8 x 8 cells in the last two stages, of windows 14 and 7

TINY_MOBILE = Sam1Config(
    encoder=TinyVitConfig(
        widths=(16, 32, 48, 320), depths=(1, 1, 2, 1), heads=(2, 3, 10), windows=(7, 14, 7)
    ),
    size=256, width=64, heads=4, depth=2, mlp_width=128,
)  # fmt: skip  # 32, 16 and 16 cells a side, so that windows of 7 and 14 jut out of the image


def tensor(key: str, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """Values that depend on the official key, the shape and the seed alone."""
    rng = np.random.default_rng((seed, zlib.crc32(key.encode())))
    normal = rng.standard_normal(shape)
    if key.endswith("bn.running_var"):
        values = np.exp(0.3 * normal)
    elif key.endswith("bn.running_mean"):
        values = 0.2 * normal
    elif key.endswith("attention_biases"):
        values = 0.5 * normal
    elif "norm" in key or key.endswith(("bn.weight", "neck.1.weight", "neck.3.weight",
                                        "downscaling.1.weight", "downscaling.4.weight",
                                        "upscaling.1.weight")):  # fmt: skip
        values = 1 + 0.1 * normal if key.endswith("weight") else 0.1 * normal
    elif key.endswith("bias"):
        values = 0.1 * normal
    elif "rel_pos" in key:
        values = 0.2 * normal
    elif "pos_embed" in key:
        values = 0.5 * normal
    elif key.endswith(
        ("mem_embed", "embed.weight", "token.weight", "tokens.weight", "gaussian_matrix")
    ) or ("point_embeddings" in key):
        values = normal
    else:
        fan = shape[0] if "output_upscaling" in key else int(np.prod(shape[1:]))
        values = normal / fan**0.5
    return torch.from_numpy(values.astype(np.float32))


def seeded(shapes: Mapping[str, torch.Size], seed: int = 0) -> dict[str, torch.Tensor]:
    """Seeded weights for a state dict with official keys."""
    return {key: tensor(key, tuple(shape), seed) for key, shape in shapes.items()}


def official(config: Sam1Config = TINY, seed: int = 0) -> dict[str, torch.Tensor]:
    """Seeded weights of a network under Meta's names."""
    with torch.device("meta"):
        network = Sam1(config)
    return seeded(published_shapes(network, meta_names), seed)


def official_mobile(config: Sam1Config = TINY_MOBILE, seed: int = 0) -> dict[str, torch.Tensor]:
    """Seeded weights of MobileSAM under its authors' names, without those that are left aside."""
    with torch.device("meta"):
        network = Sam1(config)
    return seeded(mobile_shapes(network), seed)


def in_hugging_face(
    weights: Mapping[str, torch.Tensor], config: Sam1Config = TINY
) -> dict[str, torch.Tensor]:
    """Weights with Meta's names under those of transformers."""
    with torch.device("meta"):
        keys = Sam1(config).state_dict()
    return {
        other: weights[name]
        for key in keys
        for name, other in zip(meta_names(key), hugging_face_names(key), strict=True)
    }


def official_2(config: Sam2Config = TINY_2, seed: int = 0) -> dict[str, torch.Tensor]:
    """Seeded weights of a SAM 2 under Meta's names."""
    with torch.device("meta"):
        network = Sam2(config)
    return seeded(published_shapes(network, meta_names_2), seed)


def in_hugging_face_2(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of a SAM 2 with Meta's names under those of transformers."""
    with torch.device("meta"):
        keys = Sam2(TINY_2).state_dict()
    return {
        name: torch.cat([weights[row] for row in meta_names_2(key)])
        for key in keys
        for name in hugging_face_names_2(key)
    }


def loud(weights: Mapping[str, torch.Tensor], loudness: float) -> dict[str, torch.Tensor]:
    """Weights whose logits are larger by a factor; a single mask is stable if it is large."""
    names = [key for key in weights if "hypernetworks" in key and ".layers.2." in key]
    return {**weights, **{key: loudness * weights[key] for key in names}}
