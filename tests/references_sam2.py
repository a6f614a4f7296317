"""The published implementations of SAM 2, at the tiny size and with the seeded weights."""

import importlib.util
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from geosam.model.config import Sam2Config
from geosam.model.image_encoder import Features
from geosam.model.sam1 import MEAN, STD
from geosam.protocol import TilePrompt
from tests.references import _tensors
from tests.seeded import TINY_2, seeded


class Meta2:
    """The networks and the image predictor of the package sam2 1.1.0, which is Meta's."""

    def __init__(self, config: Sam2Config = TINY_2) -> None:
        with stand_ins():
            base = pytest.importorskip("sam2.modeling.sam2_base")
            predictor = pytest.importorskip("sam2.sam2_image_predictor").SAM2ImagePredictor
            self.network = _network(base, config).eval()
        shapes = {key: value.shape for key, value in self.network.state_dict().items()}
        self.weights = seeded(shapes)
        self.network.load_state_dict(self.weights)
        self.predictor = predictor.__new__(predictor)  # its transforms would need torchvision
        self.predictor.model, self.predictor.mask_threshold = self.network, 0.0
        self.predictor._transforms = Unresized()
        self.predictor._bb_feat_sizes = [(config.size // s, config.size // s) for s in (4, 8, 16)]

    @torch.inference_mode()
    def encode(self, images: np.ndarray) -> list[np.ndarray]:
        """Embedding, stride-8 and stride-4 features of one image (1, 3, S, S)."""
        self.predictor.set_image(np.ascontiguousarray(images[0].transpose(1, 2, 0)))
        stride4, stride8 = self.predictor._features["high_res_feats"]
        return [
            part.numpy() for part in (self.predictor._features["image_embed"], stride8, stride4)
        ]

    @torch.inference_mode()
    def decode(self, features: list[np.ndarray], chosen: list[TilePrompt], *, multimask: bool):
        """Each prompt alone: masks of several are not possible without points."""
        embedding, stride8, stride4 = (torch.from_numpy(part) for part in features)
        predictor = self.predictor
        predictor._features = {"image_embed": embedding, "high_res_feats": [stride4, stride8]}
        predictor._is_image_set, predictor._orig_hw = True, [None]
        logits, scores = [], []
        for prompt in chosen:
            points, boxes, masks = _tensors([prompt])
            _, own_scores, own_logits = predictor._predict(
                *(points or (None, None)), boxes, None if masks is None else masks[:, None],
                multimask_output=multimask,
            )  # fmt: skip
            logits.append(own_logits[0].numpy())
            scores.append(own_scores[0].numpy())
        return np.stack(logits), np.stack(scores)


class Unresized:
    """What stands for the predictor's transforms when an image has the network's size already."""

    def __call__(self, picture: np.ndarray) -> torch.Tensor:
        mean, std = (torch.tensor(values) for values in (MEAN, STD))
        return ((torch.from_numpy(picture) - mean) / std).permute(2, 0, 1)

    def postprocess_masks(self, masks: torch.Tensor, _size: None) -> torch.Tensor:
        return masks


class HuggingFace2:
    """Sam2Model of transformers."""

    def __init__(self, config: Sam2Config = TINY_2) -> None:
        sam2 = pytest.importorskip("transformers.models.sam2.modeling_sam2")
        configs = pytest.importorskip("transformers.models.sam2.configuration_sam2")
        hiera = config.encoder
        widths = [hiera.width << stage for stage in range(4)]
        self.network = sam2.Sam2Model(
            configs.Sam2Config(
                vision_config=configs.Sam2VisionConfig(
                    backbone_config=configs.Sam2HieraDetConfig(
                        hidden_size=hiera.width, num_attention_heads=hiera.heads,
                        image_size=[config.size, config.size],
                        window_positional_embedding_background_size=[hiera.background] * 2,
                        blocks_per_stage=list(hiera.depths), embed_dim_per_stage=widths,
                        num_attention_heads_per_stage=[hiera.heads << stage for stage in range(4)],
                        window_size_per_stage=list(hiera.windows),
                        global_attention_blocks=list(hiera.looks_everywhere),
                    ),
                    backbone_channel_list=widths[::-1], fpn_hidden_size=config.width,
                    backbone_feature_sizes=[[config.size // stride] * 2 for stride in (4, 8, 16)],
                ),
                prompt_encoder_config={
                    "hidden_size": config.width, "image_size": config.size,
                    "mask_input_channels": config.mask_width,
                },
                mask_decoder_config={
                    "hidden_size": config.width, "mlp_dim": config.mlp_width,
                    "num_attention_heads": config.heads, "iou_head_hidden_dim": config.width,
                },
            )
        ).eval()  # fmt: skip

    @torch.inference_mode()
    def encode(self, images: np.ndarray) -> list[np.ndarray]:
        """Embedding, stride-8 and stride-4 features of one image (1, 3, S, S)."""
        mean, std = (np.float32(values)[:, None, None] for values in (MEAN, STD))
        pixels = torch.from_numpy((images.astype(np.float32) - mean) / std)
        return [part.numpy() for part in self.network.get_image_embeddings(pixels)[::-1]]

    @torch.inference_mode()
    def decode(self, features: list[np.ndarray], chosen: list[TilePrompt], *, multimask: bool):
        """Each prompt alone: a mask is one of the image in transformers, not of the prompt.

        A mask without points or box has no token here, as in Meta's image predictor; transformers'
        own `forward` would add two paddings.
        """
        logits, scores = [], []
        embedding, stride8, stride4 = (torch.from_numpy(part) for part in features)
        for prompt in chosen:
            points, boxes, masks = _tensors([prompt])
            sparse, dense = self.network.prompt_encoder(
                *((part[None] for part in points) if points else (None, None)),
                None if boxes is None else boxes[None],
                None if masks is None else masks[:, None],
            )
            own_logits, own_scores, *_ = self.network.mask_decoder(
                image_embeddings=embedding,
                image_positional_embeddings=self.network.get_image_wide_positional_embeddings(),
                sparse_prompt_embeddings=(
                    torch.zeros(1, 1, 0, embedding.shape[1]) if sparse is None else sparse
                ),
                dense_prompt_embeddings=dense,
                multimask_output=multimask,
                high_resolution_features=[stride4, stride8],
            )
            logits.append(own_logits[0, 0].numpy())
            scores.append(own_scores[0, 0].numpy())
        return np.stack(logits), np.stack(scores)


def arrays(features: Features) -> list[np.ndarray]:
    """Features as arrays."""
    return [part.numpy() for part in features]


def _network(base: types.ModuleType, config: Sam2Config) -> torch.nn.Module:
    """Meta's network of these shapes, with what makes masks of images only."""
    from sam2.modeling.backbones.hieradet import Hiera
    from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
    from sam2.modeling.position_encoding import PositionEmbeddingSine

    class Sized(base.SAM2Base):
        def _build_sam_heads(self) -> None:
            grid = config.grid
            self.sam_prompt_encoder = base.PromptEncoder(
                config.width, (grid, grid), (config.size, config.size), config.mask_width
            )
            self.sam_mask_decoder = base.MaskDecoder(
                transformer_dim=config.width,
                transformer=base.TwoWayTransformer(
                    config.depth, config.width, config.heads, config.mlp_width
                ),
                iou_head_hidden_dim=config.width, use_high_res_features=True,
                iou_prediction_use_sigmoid=True, pred_obj_scores=True, pred_obj_scores_mlp=True,
                dynamic_multimask_via_stability=True, dynamic_multimask_stability_delta=0.05,
                dynamic_multimask_stability_thresh=0.98,
            )  # fmt: skip

    hiera = config.encoder
    return Sized(
        ImageEncoder(
            Hiera(
                embed_dim=hiera.width, num_heads=hiera.heads, stages=hiera.depths,
                window_pos_embed_bkg_spatial_size=(hiera.background, hiera.background),
                window_spec=hiera.windows, global_att_blocks=hiera.looks_everywhere,
            ),
            FpnNeck(
                PositionEmbeddingSine(config.width), config.width,
                [hiera.width << stage for stage in (3, 2, 1, 0)],
                fpn_interp_model="nearest", fpn_top_down_levels=[2, 3],
            ),
            scalp=1,
        ),
        memory_attention=torch.nn.Identity(), memory_encoder=torch.nn.Identity(),
        image_size=config.size, directly_add_no_mem_embed=True, use_high_res_features_in_sam=True,
    )  # fmt: skip


@contextmanager
def stand_ins() -> Iterator[None]:
    """Stands in, during the import, for packages that sam2's image networks do not use."""
    names = {
        "torchvision": (),
        "torchvision.transforms": ("Normalize", "Resize", "ToTensor"),
        "hydra": ("initialize_config_module",),
        "hydra.core": (),
        "hydra.core.global_hydra": ("GlobalHydra",),
        "iopath": (),
        "iopath.common": (),
        "iopath.common.file_io": ("g_pathmgr",),
    }
    lacking = [name for name in names if not importlib.util.find_spec(name.partition(".")[0])]
    for module in lacking:
        sys.modules[module] = types.ModuleType(module)
        for attribute in names[module]:
            setattr(sys.modules[module], attribute, Anything())
    try:
        yield
    finally:
        for module in lacking:
            del sys.modules[module]


class Anything:
    """Calls and attributes lead to itself, which is true."""

    def __call__(self, *_args: object, **_options: object) -> "Anything":
        return self

    def __getattr__(self, _name: str) -> "Anything":
        return self
