"""A GPU gives what the CPU gives; where there is none, its kernel is interpreted on the CPU."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from geosam import load_model
from geosam.model import sam1_weights, sam2_weights
from geosam.model.config import VitConfig
from geosam.model.engine import Engine
from geosam.model.sam1_runtime import Sam1Model
from geosam.model.sam1_weights import build_sam1
from geosam.model.sam2_runtime import Sam2Model
from geosam.model.sam2_weights import build_sam2
from geosam.model.vit import ImageAttention
from tests.references import KINDS, image, prompts
from tests.seeded import TINY, TINY_2, official, official_2

pytest.importorskip("triton")
has_gpu = torch.cuda.is_available()  # if not, see tests/conftest.py
from geosam.model.kernels.attention import attend  # noqa: E402
from geosam.model.kernels.norm import normalised  # noqa: E402

ALL = [prompt for kind in KINDS for prompt in prompts(kind)]
DEVICE = "cuda" if has_gpu else "cpu"


@pytest.mark.parametrize("channels", [16, 32, 80])
@pytest.mark.parametrize(
    ("window", "height", "width"),
    [(4, 8, 8), (3, 5, 4), (14, 16, 20), (16, 16, 16)],
    ids=["windows", "windows beyond the image", "windows of 14", "everywhere"],
)
def test_the_kernel_is_attention_with_a_mask(window, height, width, channels):
    torch.manual_seed(0)
    config = VitConfig(width=2 * channels, depth=1, heads=2, looks_everywhere=())
    attention = ImageAttention(config, window).requires_grad_(False)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.3 / channels**0.25)
    x = torch.randn(2, height, width, 2 * channels)
    expected = attention(x)
    attention, x = attention.to(DEVICE), x.to(DEVICE)
    found = attend(x, attention.qkv, attention.rel_pos_h, attention.rel_pos_w, window)
    torch.testing.assert_close(attention.proj(found).cpu(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("channels", [16, 64, 96, 768])
@pytest.mark.parametrize("gelu", [True, False])
def test_the_kernel_is_layer_normalisation(channels, gelu):
    torch.manual_seed(0)
    x = torch.randn(3, 7, 5, channels).transpose(1, 2) + 3
    weight, bias = torch.randn(2, channels)
    expected = F.layer_norm(x, (channels,), weight, bias, 1e-6)
    found = normalised(*(part.to(DEVICE) for part in (x, weight, bias)), 1e-6, gelu=gelu)
    torch.testing.assert_close(
        found.cpu(), F.gelu(expected) if gelu else expected, atol=1e-5, rtol=1e-5
    )


@pytest.fixture(scope="module", params=["SAM", "SAM 2", "nano"])
def model(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sam1_weights, "CONFIGS", {"tiny": TINY})
        patch.setattr(sam2_weights, "CONFIGS_2", {"tiny": TINY_2})
        if request.param == "SAM":
            return Sam1Model(build_sam1(official(), Path("tiny.pth")), "tiny-1")
        if request.param == "SAM 2":
            return Sam2Model(build_sam2(official_2(), Path("tiny.pt")), "tiny-2")
    return load_model(device="cpu")


@pytest.mark.skipif(not has_gpu, reason="there is no GPU")
@pytest.mark.parametrize(("precision", "atol"), [("fp32", 2e-3), ("bf16", 0.1)])
def test_a_gpu_gives_what_the_cpu_gives(model, precision, atol):
    twin = type(model)(copy.deepcopy(model.network), "twin", Engine.of("cuda", precision))
    images = np.concatenate([image(i, model.size) for i in range(3)])
    expected, found = (own.encode(images).astype(np.float32) for own in (model, twin))
    spread = expected.std()
    assert np.sqrt(np.square(found - expected).mean()) < atol * spread
    features = expected[0].astype(np.float16)
    asked = ALL if model.size == 256 else [p for kind in KINDS for p in prompts(kind, model.size)]
    for multimask in (True, False):
        ours = twin.decode(features, asked, multimask=multimask)
        theirs = model.decode(features, asked, multimask=multimask)
        for one, two in zip(ours, theirs, strict=True):
            if precision == "fp32":
                np.testing.assert_allclose(one, two, atol=2e-3)
        masks = ours[0] > 0, theirs[0] > 0
        both, either = ((op(*masks)).sum((-1, -2)) for op in (np.logical_and, np.logical_or))
        assert np.median(both / either.clip(1)) > 0.95
