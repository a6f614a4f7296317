"""The published implementations of SAM, at the tiny size and with the seeded weights."""

import importlib.util
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import pytest
import torch

from geosam.model.config import Sam1Config
from geosam.model.sam1 import MEAN, STD
from geosam.protocol import TilePrompt
from tests.seeded import TINY, TINY_MOBILE, seeded

POINTS = np.array([[[30.0, 200], [17.5, 40]], [[128, 128], [250, 3]]], np.float32)
BOXES = np.array([[20.0, 30, 120, 200], [0, 0, 255, 255]], np.float32)
LABELS = np.array([[1, 0], [1, 1]], np.int64)
KINDS = {
    "point": ("points",),
    "box": ("box",),
    "points+box": ("points", "box"),
    "mask": ("mask",),
    "box+mask": ("box", "mask"),
    "points+box+mask": ("points", "box", "mask"),
}


def image(seed: int = 0, size: int = 256) -> np.ndarray:
    """(1, 3, size, size) uint8, large squares under noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (3, 8, 8)).repeat(size // 8, 1).repeat(size // 8, 2)
    return (coarse // 2 + rng.integers(0, 128, (3, size, size)))[None].astype(np.uint8)


def prompts(kind: str, size: int = 256) -> list[TilePrompt]:
    """Two prompts of a kind, on an image of that size."""
    parts, scale = KINDS[kind], np.float32(size / 256)
    masks = np.random.default_rng(1).normal(0, 4, (2, size // 4, size // 4)).astype(np.float32)
    return [
        TilePrompt(
            scale * POINTS[i] if "points" in parts else np.zeros((0, 2), np.float32),
            LABELS[i] if "points" in parts else np.zeros(0, np.int64),
            scale * BOXES[i] if "box" in parts else None,
            masks[i] if "mask" in parts else None,
        )
        for i in range(2)
    ]


class Meta:
    """Meta's segment-anything 1.0."""

    def __init__(self, config: Sam1Config = TINY) -> None:
        self.network = self.untrained(config).eval()
        shapes = {key: value.shape for key, value in self.network.state_dict().items()}
        self.weights = seeded(shapes)
        self.network.load_state_dict(self.weights)

    @staticmethod
    def untrained(config: Sam1Config) -> torch.nn.Module:
        with _torchvision():
            modeling = pytest.importorskip("segment_anything.modeling")
        vit, grid = config.encoder, config.size // 16
        return modeling.Sam(
            modeling.ImageEncoderViT(
                img_size=config.size, embed_dim=vit.width, depth=vit.depth, num_heads=vit.heads,
                out_chans=config.width, use_rel_pos=True, window_size=vit.window,
                norm_layer=lambda width: torch.nn.LayerNorm(width, eps=1e-6),
                global_attn_indexes=vit.looks_everywhere,
            ),
            modeling.PromptEncoder(
                config.width, (grid, grid), (config.size, config.size), config.mask_width
            ),
            modeling.MaskDecoder(
                transformer_dim=config.width, iou_head_hidden_dim=config.width,
                transformer=modeling.TwoWayTransformer(
                    config.depth, config.width, config.heads, config.mlp_width
                ),
            ),
            list(MEAN), list(STD),
        )  # fmt: skip

    @torch.inference_mode()
    def encode(self, images: np.ndarray) -> np.ndarray:
        return self._embedding(self.network.preprocess(torch.from_numpy(images).float())).numpy()

    def _embedding(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.network.image_encoder(pixels)

    @torch.inference_mode()
    def decode(self, embedding: np.ndarray, chosen: list[TilePrompt], *, multimask: bool):
        points, boxes, masks = _tensors(chosen)
        sparse, dense = self.network.prompt_encoder(
            points, boxes, None if masks is None else masks[:, None]
        )
        logits, scores = self.network.mask_decoder(
            torch.from_numpy(embedding), self.network.prompt_encoder.get_dense_pe(), sparse, dense,
            multimask_output=multimask,
        )  # fmt: skip
        return logits.numpy(), scores.numpy()


class MobileSam(Meta):
    """MobileSAM of its authors, as packed in mobilesam-mirror 1.0.0.

    Its last steps are written out here, because they are for images of 1024 px alone there.
    """

    def __init__(self, config: Sam1Config = TINY_MOBILE) -> None:
        self.network = self.untrained(config)
        own = self.network.state_dict()
        numbers = {key: value.shape for key, value in own.items() if value.is_floating_point()}
        self.weights = own | seeded(numbers)
        self.network.load_state_dict(self.weights)
        self.network.eval()  # after loading: it makes a table of the biases

    @staticmethod
    def untrained(config: Sam1Config) -> torch.nn.Module:
        with _torchvision(), _timm():
            modeling = pytest.importorskip("mobile_sam.modeling")
        vit, grid, width = config.encoder, config.grid, config.width
        encoder = modeling.TinyViT(
            img_size=config.size, embed_dims=list(vit.widths), depths=list(vit.depths),
            num_heads=[0, *vit.heads], window_sizes=[0, *vit.windows], drop_path_rate=0.0,
        )  # fmt: skip
        if width != encoder.neck[0].out_channels:
            norm = type(encoder.neck[1])
            encoder.neck = torch.nn.Sequential(
                torch.nn.Conv2d(vit.widths[-1], width, 1, bias=False), norm(width),
                torch.nn.Conv2d(width, width, 3, padding=1, bias=False), norm(width),
            )  # fmt: skip
        return modeling.Sam(
            encoder,
            modeling.PromptEncoder(
                width, (grid, grid), (config.size, config.size), config.mask_width
            ),
            modeling.MaskDecoder(
                transformer_dim=width, iou_head_hidden_dim=width,
                transformer=modeling.TwoWayTransformer(
                    config.depth, width, config.heads, config.mlp_width
                ),
            ),
            list(MEAN), list(STD),
        )  # fmt: skip

    def _embedding(self, pixels: torch.Tensor) -> torch.Tensor:
        encoder = self.network.image_encoder
        x = encoder.patch_embed(pixels)
        for layer in encoder.layers:
            x = layer(x)
        side = pixels.shape[-1] // 16
        return encoder.neck(x.view(len(x), side, side, -1).permute(0, 3, 1, 2))


def meta_shapes(name: str) -> dict[str, torch.Size]:
    """Of every tensor of a published model: vit_b, vit_l or vit_h."""
    with _torchvision():
        package = pytest.importorskip("segment_anything")
    with torch.device("meta"):
        network = package.sam_model_registry[name]()
    return {key: value.shape for key, value in network.state_dict().items()}


class HuggingFace:
    """SamModel of transformers, with the epsilon of its decoder's norms as in Meta's."""

    def __init__(self, config: Sam1Config = TINY) -> None:
        sam = pytest.importorskip("transformers.models.sam")
        vit = config.encoder
        self.network = sam.SamModel(
            sam.SamConfig(
                vision_config={
                    "hidden_size": vit.width, "output_channels": config.width,
                    "image_size": config.size, "num_hidden_layers": vit.depth,
                    "num_attention_heads": vit.heads, "window_size": vit.window,
                    "global_attn_indexes": list(vit.looks_everywhere),
                    "num_pos_feats": config.width // 2,
                },
                prompt_encoder_config={
                    "hidden_size": config.width, "image_size": config.size,
                    "mask_input_channels": config.mask_width,
                },
                mask_decoder_config={
                    "hidden_size": config.width, "mlp_dim": config.mlp_width,
                    "num_attention_heads": config.heads, "iou_head_hidden_dim": config.width,
                    "layer_norm_eps": 1e-5,
                },
            )
        ).eval()  # fmt: skip

    @torch.inference_mode()
    def encode(self, images: np.ndarray) -> np.ndarray:
        mean, std = (np.float32(values)[:, None, None] for values in (MEAN, STD))
        pixels = torch.from_numpy((images.astype(np.float32) - mean) / std)
        return self.network.get_image_embeddings(pixels).numpy()

    @torch.inference_mode()
    def decode(self, embedding: np.ndarray, chosen: list[TilePrompt], *, multimask: bool):
        """Each prompt alone: a mask is one of the image in transformers, not of the prompt."""
        logits, scores = [], []
        for prompt in chosen:
            points, boxes, masks = _tensors([prompt])
            out = self.network(
                image_embeddings=torch.from_numpy(embedding),
                input_points=None if points is None else points[0][None],
                input_labels=None if points is None else points[1][None],
                input_boxes=None if boxes is None else boxes[None],
                input_masks=None if masks is None else masks[:, None],
                multimask_output=multimask,
            )
            logits.append(out.pred_masks[0, 0].numpy())
            scores.append(out.iou_scores[0, 0].numpy())
        return np.stack(logits), np.stack(scores)


def _tensors(chosen: list[TilePrompt]):
    points = None
    if len(chosen[0].points):
        points = tuple(
            torch.from_numpy(np.stack(parts))
            for parts in ([p.points for p in chosen], [p.labels for p in chosen])
        )
    boxes, masks = (
        None if parts[0] is None else torch.from_numpy(np.stack(parts))
        for parts in ([p.box for p in chosen], [p.mask for p in chosen])
    )
    return points, boxes, masks


@contextmanager
def _stand_ins(package: str, modules: Mapping[str, Mapping[str, object]]) -> Iterator[None]:
    """Stand in, during an import, for names of a package that is not installed."""
    if importlib.util.find_spec(package):
        yield
        return
    for module, names in modules.items():
        sys.modules[module] = types.ModuleType(module)
        sys.modules[module].__dict__.update(names)
    try:
        yield
    finally:
        for module in modules:
            del sys.modules[module]


def _torchvision() -> AbstractContextManager[None]:
    """For names that the networks of segment_anything and mobile_sam do not use."""
    return _stand_ins(
        "torchvision",
        {
            "torchvision": {},
            "torchvision.ops": {},
            "torchvision.ops.boxes": dict.fromkeys(("batched_nms", "box_area")),
            "torchvision.transforms": {},
            "torchvision.transforms.functional": dict.fromkeys(("resize", "to_pil_image")),
        },
    )


def _timm() -> AbstractContextManager[None]:
    """For what TinyViT takes from timm, of which only `to_2tuple` bears on its answers."""
    return _stand_ins(
        "timm",
        {
            "timm": {},
            "timm.models": {},
            "timm.models.layers": {
                "DropPath": torch.nn.Module,
                "to_2tuple": lambda side: (side, side),
                "trunc_normal_": torch.nn.init.trunc_normal_,
            },
            "timm.models.registry": {"register_model": lambda function: function},
        },
    )
