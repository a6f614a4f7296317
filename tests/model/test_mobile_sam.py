"""MobileSAM from a file of its authors' to polygons, and what must be true of its encoder."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

import geosam
from geosam import load_model
from geosam.errors import ModelError, WeightsError
from geosam.model import mobile_weights, tiny_vit
from geosam.model.config import MOBILE_SAM
from geosam.model.engine import Engine
from geosam.model.mobile_weights import build_mobile_sam
from geosam.model.sam1 import Sam1
from geosam.model.sam1_runtime import Sam1Model
from geosam.model.tiny_vit import WindowAttention
from tests.fakes import discs, write_raster
from tests.model.alike import same_models
from tests.references import image
from tests.seeded import TINY_MOBILE, official_mobile
from tiles import StoreMismatch

CONV = "image_encoder.layers.0.blocks.0.conv2"


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(mobile_weights, "MOBILE_SAM", TINY_MOBILE)


@pytest.fixture
def weights():
    return official_mobile()


@pytest.fixture
def network(weights):
    return build_mobile_sam(weights, Path("mobile.pt")).eval().requires_grad_(False)


def refused(path, weights, match):
    torch.save(weights, path)
    with pytest.raises(WeightsError, match=match) as caught:
        load_model(path)
    assert str(path) in str(caught.value)


def test_published_size():
    with torch.device("meta"):
        network = Sam1(MOBILE_SAM)
    encoder, whole = (
        sum(p.numel() for p in part.parameters()) / 1e6 for part in (network.image_encoder, network)
    )
    assert (encoder, whole) == pytest.approx((5.74, 9.8), abs=0.1)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    model = Sam1Model(network, "x", Engine(torch.device("meta"), torch.float32))
    assert (model.size, model.logits_size, model.feature_shape) == (1024, 256, (256, 64, 64))


def test_pt_and_safetensors_are_the_same_model_with_or_without_a_classifier(tmp_path, weights):
    torch.save(weights, tmp_path / "a.pt")
    save_file(weights, tmp_path / "b.safetensors")
    more = {
        "image_encoder.norm_head.weight": torch.ones(320),
        "image_encoder.head.weight": torch.full((1000, 320), torch.nan),
        "image_encoder.layers.1.blocks.0.attn.attention_bias_idxs": torch.zeros(49, 49).long(),
        f"{CONV}.bn.num_batches_tracked": torch.tensor(7),
    }
    torch.save(weights | more, tmp_path / "c.pth")
    models = []
    for name in ("a.pt", "b.safetensors", "c.pth"):
        models.append(load_model(tmp_path / name))
        assert models[-1].id.startswith(name.split(".")[0] + "-")
    same_models(models)


def test_differences_are_named_as_the_file_has_them(tmp_path, weights):
    path = tmp_path / "w.pt"
    lacking = {key: value for key, value in weights.items() if key != f"{CONV}.bn.running_mean"}
    for changed, match in (
        (
            lacking | {"image_encoder.extra": torch.zeros(2)},
            rf"has unknown image_encoder\.extra; lacks {CONV}\.bn\.running_mean; 2 differences",
        ),
        (
            weights | {f"{CONV}.c.weight": torch.zeros(64, 1, 5, 5)},
            rf"{CONV}\.c\.weight is \(64, 1, 5, 5\), not \(64, 1, 3, 3\).*of MobileSAM",
        ),
        (
            weights | {f"{CONV}.bn.bias": torch.full((64,), torch.inf)},
            rf"NaN or infinity in {CONV}\.bn\.bias",
        ),
        (
            weights | {f"{CONV}.bn.running_var": torch.full((64,), -1.0)},
            rf"NaN or infinity in {CONV}\.weight",
        ),
    ):
        refused(path, changed, match)


def test_a_model_that_was_not_fetched_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("GEOSAM_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"'mobile-sam': not fetched.*mobile_sam\.pt.*41 MB"):
        load_model("mobile-sam")


@pytest.mark.parametrize(
    ("key", "layer"),
    [
        ("image_encoder.patch_embed.seq.2", "stem.2"),
        (CONV, "stages.0.0.conv2"),
        ("image_encoder.layers.2.downsample.conv3", "merges.2.conv3"),
        ("image_encoder.layers.3.blocks.0.local_conv", "stages.3.0.local_conv"),
    ],
)
def test_a_folded_convolution_is_one_and_its_batch_norm(weights, network, key, layer):
    """In double precision the parts agree to what rounding the products to single costs."""
    folded = network.image_encoder.get_submodule(layer)
    kernel = weights[f"{key}.c.weight"].double()
    norm = nn.BatchNorm2d(len(kernel)).double().eval()
    parts = {name: weights[f"{key}.bn.{name}"] for name in norm.state_dict() if "num" not in name}
    norm.load_state_dict(parts, strict=False)
    groups = len(kernel) if kernel.shape[1] == 1 else 1
    x = torch.randn(2, groups * kernel.shape[1], 5, 6, generator=torch.Generator().manual_seed(0))
    expected = norm(F.conv2d(x.double(), kernel, padding=kernel.shape[2] // 2, groups=groups))
    found = F.conv2d(
        x.double(), folded.weight.double().view(kernel.shape), folded.bias.double(),
        padding=kernel.shape[2] // 2, groups=groups,
    )  # fmt: skip
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_windows_see_themselves_and_the_padding_alone():
    """Attention written out, window by window, with zeros where a window juts out."""
    torch.manual_seed(0)
    side, heads, channels = 3, 2, 4
    attention = WindowAttention(heads * channels, heads, side).requires_grad_(False)
    for parameter in attention.parameters():
        parameter.copy_(torch.randn(parameter.shape))
    x = torch.randn(2, 5, 4, heads * channels)
    padded = F.pad(x, (0, 0, 0, 2, 0, 1))  # to 6 x 6
    expected = torch.empty_like(padded)
    for image_at, top, left in np.ndindex(2, 2, 2):
        window = np.s_[image_at, 3 * top : 3 * top + 3, 3 * left : 3 * left + 3]
        qkv = attention.qkv(attention.norm(padded[window].flatten(0, 1)))
        parts = []
        for head, of_head in enumerate(qkv.view(9, heads, 3, channels).unbind(1)):
            q, k, v = of_head.unbind(1)
            scores = q @ k.T / channels**0.5
            for i, j in np.ndindex(9, 9):
                rows, cols = abs(i // side - j // side), abs(i % side - j % side)
                scores[i, j] += attention.attention_biases[head, side * rows + cols]
            parts.append(scores.softmax(-1) @ v)
        expected[window] = attention.proj(torch.cat(parts, -1)).view(3, 3, -1)
    torch.testing.assert_close(attention(x), expected[:, :5, :4], atol=1e-5, rtol=1e-4)


def test_bands_of_bounded_size_change_nothing(network, monkeypatch):
    """Bands of 2 rows, of 6 (which do not divide the image), and the whole image at once."""
    pixels = torch.from_numpy(image()).float()
    answers = []
    for numbers in (1, 6 * 64 * 64, 2**30):
        monkeypatch.setattr(tiny_vit, "BAND_NUMBERS", numbers)
        answers.append(network.encode(pixels))
    for answer in answers[1:]:
        torch.testing.assert_close(answer, answers[0], atol=1e-5, rtol=0)


def test_every_tensor_of_the_encoder_matters(network):
    pixels = torch.from_numpy(image()).float()
    before = network.encode(pixels)
    for key, value in network.image_encoder.state_dict().items():
        kept = value.clone()
        value += torch.randn(value.shape, generator=torch.Generator().manual_seed(0))
        assert (network.encode(pixels) - before).abs().max() > 1e-3, key
        value.copy_(kept)


def test_images_in_one_batch_do_not_see_each_other(network):
    both = torch.from_numpy(np.concatenate([image(0), image(1)])).float()
    together = network.encode(both)
    for one, alone in zip(together, both, strict=True):
        torch.testing.assert_close(one, network.encode(alone[None])[0], atol=1e-5, rtol=0)


def test_clicks_and_boxes_on_a_raster_become_polygons(tmp_path, weights):
    grey = discs((400, 420), (100, 120, 40), (280, 300, 60))
    grey += np.random.default_rng(0).integers(0, 8, grey.shape, np.uint8)
    path = write_raster(tmp_path / "ortho.tif", np.stack([grey] * 3))
    torch.save(weights, tmp_path / "mobile_sam.pt")
    model = load_model(tmp_path / "mobile_sam.pt", device="cpu")
    asked = geosam.PromptSet.of(
        points=[(516_216, 5_160_860)], boxes=[(516_326, 5_160_610, 516_466, 5_160_750)]
    )
    store = geosam.encode(model, path, tmp_path / "features.zarr", scales=[1, 2])
    assert store.meta["model"] == model.id
    direct = geosam.segment(model, path, asked, scales=[1, 2])
    stored = geosam.segment(model, store, asked)
    assert len(direct) == 2
    assert direct.equals(stored)
    assert direct.crs == 32633
    assert not direct.geometry.is_empty.all() and direct["area_m2"].max() > 0
    with pytest.raises(StoreMismatch, match=model.id):
        geosam.segment(load_model("nano"), store, asked)
