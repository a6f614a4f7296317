"""SAM 2.1's weights as others publish them: Meta's files and those of Hugging Face's transformers.

Sources of the names: sam2/modeling; transformers/models/sam2, sam2_video. What only videos need
(`VIDEO`) is known by name and left aside. SAM 2.0 is the same network for images with other
numbers, so its files load as well and give what SAM 2.0 gives: among the tensors that images need
nothing tells the two apart. The id of the model, which begins with the file's name and ends in its
hash, does.
"""

from pathlib import Path

import torch

from geosam.errors import WeightsError
from geosam.model.config import (
    HIERA_BASE_PLUS,
    HIERA_LARGE,
    HIERA_SMALL,
    HIERA_TINY,
    Sam2Config,
)
from geosam.model.published import filled, rename
from geosam.model.sam1_weights import DECODER_TO_HUGGING_FACE, DECODER_TO_META, code_once
from geosam.model.sam2 import Sam2
from geosam.model.weights import Weights

CONFIGS_2 = {
    "SAM 2.1 Hiera tiny": HIERA_TINY,
    "SAM 2.1 Hiera small": HIERA_SMALL,
    "SAM 2.1 Hiera base-plus": HIERA_BASE_PLUS,
    "SAM 2.1 Hiera large": HIERA_LARGE,
}
META_MARK = "image_encoder.trunk.patch_embed.proj.weight"
HUGGING_FACE_MARK = "vision_encoder.backbone.patch_embed.projection.weight"

# Beginnings of the names of tensors that images do not need, Meta's and those of transformers.
VIDEO = (
    "memory_attention.", "memory_encoder.", "mask_downsample.",
    "maskmem_tpos_enc", "no_mem_pos_enc", "no_obj_ptr", "no_obj_embed_spatial", "obj_ptr_proj.",
    "obj_ptr_tpos_proj.", "sam_mask_decoder.pred_obj_score_head.",
    "memory_temporal_positional_encoding", "no_memory_positional_encoding", "no_object_pointer",
    "occlusion_spatial_embedding_parameter", "object_pointer_proj.",
    "temporal_positional_encoding_projection_layer.", "mask_decoder.pred_obj_score_head.",
)  # fmt: skip

# From geosam's names to Meta's, and from Meta's to transformers'. All that match apply, in order.
_TO_META = (
    (r"^image_encoder\.no_memory$", "no_mem_embed"),
    (r"^image_encoder\.lateral32\.", "image_encoder.neck.convs.0.conv."),
    (r"^image_encoder\.lateral16\.", "image_encoder.neck.convs.1.conv."),
    (r"^image_encoder\.lateral8\.", "image_encoder.neck.convs.2.conv."),
    (r"^image_encoder\.lateral4\.", "image_encoder.neck.convs.3.conv."),
    (r"^image_encoder\.skip8\.", "mask_decoder.conv_s1."),
    (r"^image_encoder\.skip4\.", "mask_decoder.conv_s0."),
    (r"^(prompt_encoder|mask_decoder)\.", r"sam_\1."),
    (r"patch_embed\.", "patch_embed.proj."),
    (r"mlp\.0\.", "mlp.layers.0."),
    (r"mlp\.2\.", "mlp.layers.1."),
    (r"object_token$", "obj_score_token.weight"),
    *DECODER_TO_META,
)
_TO_HUGGING_FACE = (
    (r"^no_mem_embed$", "no_memory_embedding"),
    (r"^sam_prompt_encoder\.pe_layer\..*", "shared_image_embedding.positional_embedding"),
    (r"^sam_", ""),
    (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
    (r"^image_encoder\.neck\.convs\.(\d)\.conv\.", r"vision_encoder.neck.convs.\1."),
    (r"(blocks\.\d+\.|layers\.\d\.)norm(\d)\.", r"\1layer_norm\2."),
    (r"mlp\.layers\.0\.", "mlp.proj_in."),
    (r"mlp\.layers\.1\.", "mlp.proj_out."),
    (r"patch_embed\.proj\.", "patch_embed.projection."),
    (r"point_embeddings$", "point_embed.weight"),
    (r"\.out_proj\.", ".o_proj."),
    (r"norm_final_attn\.", "layer_norm_final_attn."),
    *DECODER_TO_HUGGING_FACE,
)


def is_sam2(weights: Weights) -> bool:
    """Whether tensors are those of a SAM 2, by their names."""
    return META_MARK in weights or HUGGING_FACE_MARK in weights


def build_sam2(weights: Weights, path: Path) -> Sam2:
    """The network that published weights belong to, filled with them, in single precision.

    Args:
        weights: under Meta's names or under those of transformers.
        path: where they come from, for messages.

    Raises:
        WeightsError: keys or shapes differ from the network's, or there is a NaN.
    """
    weights = {key: value for key, value in weights.items() if not key.startswith(VIDEO)}
    names, blocks = meta_names_2, "image_encoder.trunk.blocks."
    mark = META_MARK
    if HUGGING_FACE_MARK in weights:
        names, mark, blocks = (
            hugging_face_names_2,
            HUGGING_FACE_MARK,
            "vision_encoder.backbone.blocks.",
        )
        weights = code_once(weights, path)
    depth = len({key.split(".")[3] for key in weights if key.startswith(blocks)})
    model, config = _config(len(weights[mark]), depth, path)
    with torch.device("meta"):  # no numbers are made that would be overwritten
        network = Sam2(config)
    return filled(network, weights, names, path, model)


def meta_names_2(key: str) -> tuple[str, ...]:
    """Meta's names for a tensor of `Sam2`: one, or those of its rows."""
    name = rename(key, _TO_META)
    if name.endswith("point_embeddings"):
        return tuple(f"{name}.{i}.weight" for i in range(4))
    return (name,)


def hugging_face_names_2(key: str) -> tuple[str, ...]:
    """The name in transformers for a tensor of `Sam2`."""
    return (rename(rename(key, _TO_META), _TO_HUGGING_FACE),)


def _config(width: int, depth: int, path: Path) -> tuple[str, Sam2Config]:
    for model, config in CONFIGS_2.items():
        if (config.encoder.width, sum(config.encoder.depths)) == (width, depth):
            return model, config
    known = ", ".join(
        f"{config.encoder.width} and {sum(config.encoder.depths)} in {name}"
        for name, config in CONFIGS_2.items()
    )
    raise WeightsError(
        f"{path}: a trunk of width {width} with {depth} blocks (expected {known}). Use one of "
        "these models."
    )
