"""SAM's weights as others publish them: Meta's files and those of Hugging Face's transformers.

Sources of the names: segment_anything/modeling; transformers/models/sam/modeling_sam.py.
"""

from pathlib import Path

import torch

from geosam.errors import WeightsError
from geosam.model.config import VIT_B, VIT_H, VIT_L, Sam1Config
from geosam.model.published import filled, rename
from geosam.model.sam1 import Sam1
from geosam.model.weights import Weights

CONFIGS = {"SAM ViT-B": VIT_B, "SAM ViT-L": VIT_L, "SAM ViT-H": VIT_H}
META_MARK = "image_encoder.patch_embed.proj.weight"
HUGGING_FACE_MARK = "vision_encoder.patch_embed.projection.weight"

# What transformers saves twice, or once, as the version pleases.
_CODE = "shared_image_embedding.positional_embedding"
_CODE_AGAIN = "prompt_encoder.shared_embedding.positional_embedding"

# From geosam's names to Meta's, and from Meta's to transformers'. All that match apply, in order.
# First those of prompts and decoder that SAM 2 has as well.
DECODER_TO_META = (
    (r"code\.gaussian", "pe_layer.positional_encoding_gaussian_matrix"),
    (r"(not_a_point|no_mask)$", r"\1_embed.weight"),
    (r"(iou_token|mask_tokens)$", r"\1.weight"),
    (r"upscale8\.", "output_upscaling.0."),
    (r"norm8\.", "output_upscaling.1."),
    (r"upscale4\.", "output_upscaling.3."),
    (r"hypernetworks\.", "output_hypernetworks_mlps."),
    (r"iou_head\.", "iou_prediction_head."),
)
DECODER_TO_HUGGING_FACE = (
    (r"mask_downscaling\.0\.", "mask_embed.conv1."),
    (r"mask_downscaling\.1\.", "mask_embed.layer_norm1."),
    (r"mask_downscaling\.3\.", "mask_embed.conv2."),
    (r"mask_downscaling\.4\.", "mask_embed.layer_norm2."),
    (r"mask_downscaling\.6\.", "mask_embed.conv3."),
    (r"output_upscaling\.0\.", "upscale_conv1."),
    (r"output_upscaling\.1\.", "upscale_layer_norm."),
    (r"output_upscaling\.3\.", "upscale_conv2."),
    (r"(head|mlps\.\d)\.layers\.0\.", r"\1.proj_in."),
    (r"(head|mlps\.\d)\.layers\.1\.", r"\1.layers.0."),
    (r"(head|mlps\.\d)\.layers\.2\.", r"\1.proj_out."),
)
_TO_META = (
    (r"patch_embed\.", "patch_embed.proj."),
    (r"mlp\.0\.", "mlp.lin1."),
    (r"mlp\.2\.", "mlp.lin2."),
    *DECODER_TO_META,
)
_TO_HUGGING_FACE = (
    (r"^prompt_encoder\.pe_layer\..*", _CODE),
    (r"^image_encoder\.", "vision_encoder."),
    (r"(vision_encoder\.)blocks\.", r"\1layers."),
    (r"(vision_encoder\.layers\.\d+\.)norm", r"\1layer_norm"),
    (r"patch_embed\.proj\.", "patch_embed.projection."),
    (r"neck\.0\.", "neck.conv1."),
    (r"neck\.1\.", "neck.layer_norm1."),
    (r"neck\.2\.", "neck.conv2."),
    (r"neck\.3\.", "neck.layer_norm2."),
    (r"point_embeddings\.", "point_embed."),
    (r"(transformer\..*)\bnorm(\d)\.", r"\1layer_norm\2."),
    (r"transformer\.norm_final_attn\.", "transformer.layer_norm_final_attn."),
    *DECODER_TO_HUGGING_FACE,
)


def is_sam1(weights: Weights) -> bool:
    """Whether tensors are those of a SAM with a plain vision transformer, by their names."""
    return META_MARK in weights or HUGGING_FACE_MARK in weights


def build_sam1(weights: Weights, path: Path) -> Sam1:
    """The network that published weights belong to, filled with them, in single precision.

    Args:
        weights: under Meta's names or under those of transformers.
        path: where they come from, for messages.

    Raises:
        WeightsError: keys or shapes differ from the network's, or there is a NaN.
    """
    names, mark = meta_names, META_MARK
    if HUGGING_FACE_MARK in weights:
        names, mark = hugging_face_names, HUGGING_FACE_MARK
        weights = code_once(weights, path)
    model, config = _config(len(weights[mark]), path)
    with torch.device("meta"):  # no numbers are made that would be overwritten
        network = Sam1(config)
    return filled(network, weights, names, path, model)


def meta_names(key: str) -> tuple[str, ...]:
    """Meta's names for a tensor of `Sam1`: one, or those of its rows."""
    if key == "prompt_encoder.point_embeddings":
        return tuple(f"{key}.{i}.weight" for i in range(4))
    return (rename(key, _TO_META),)


def hugging_face_names(key: str) -> tuple[str, ...]:
    """The names in transformers for a tensor of `Sam1`: one, or those of its rows."""
    return tuple(rename(name, _TO_HUGGING_FACE) for name in meta_names(key))


def _config(width: int, path: Path) -> tuple[str, Sam1Config]:
    for model, config in CONFIGS.items():
        if config.encoder.width == width:
            return model, config
    known = ", ".join(f"{config.encoder.width} in {name}" for name, config in CONFIGS.items())
    raise WeightsError(
        f"{path}: an image encoder of width {width} (expected {known}). Use one of these models."
    )


def code_once(weights: Weights, path: Path) -> Weights:
    """The weights with the positional code under one of its two names."""
    if _CODE_AGAIN not in weights:
        return weights
    once = {key: value for key, value in weights.items() if key != _CODE_AGAIN}
    again = weights[_CODE_AGAIN]
    if not torch.equal(once.setdefault(_CODE, again), again):
        raise WeightsError(
            f"{path}: {_CODE} and {_CODE_AGAIN} differ (expected the same numbers). Fetch or "
            "export the weights again."
        )
    return once
