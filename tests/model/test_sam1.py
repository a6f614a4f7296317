"""SAM behind the protocol, and what must be true of it whatever the weights are."""

import copy
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from geosam.model import sam1_weights
from geosam.model.config import VIT_B, VIT_H, VIT_L
from geosam.model.engine import CPU, Engine
from geosam.model.one_image import OneImage, attend, cells_of
from geosam.model.sam1 import MEAN, STD, Sam1
from geosam.model.sam1_decoder import Upscale
from geosam.model.sam1_runtime import UNDRAWN, Sam1Model
from geosam.model.sam1_weights import build_sam1
from geosam.model.vit import ImageAttention, folded
from geosam.protocol import FILL
from tests.model.alike import own_images_change_nothing
from tests.references import KINDS, image, prompts
from tests.seeded import TINY, official

ALL = [prompt for kind in KINDS for prompt in prompts(kind)]


@pytest.fixture(scope="module")
def model():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sam1_weights, "CONFIGS", {"tiny": TINY})
        return Sam1Model(build_sam1(official(), Path("tiny.pth")), "tiny-0")


@pytest.fixture(scope="module")
def features(model):
    return model.encode(np.concatenate([image(0), image(1)]))


@pytest.mark.parametrize(
    ("config", "millions"), [(VIT_B, 93.7), (VIT_L, 312.3), (VIT_H, 641.1)], ids="BLH"
)
def test_published_sizes(config, millions):
    with torch.device("meta"):
        network = Sam1(config)
    count = sum(p.numel() for p in network.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.1)
    model = Sam1Model(network, "x", Engine(torch.device("meta"), torch.float32))
    assert (model.size, model.logits_size, model.feature_shape) == (1024, 256, (256, 64, 64))


def test_shapes(model, features):
    assert features.shape == (2, *model.feature_shape)
    assert features.dtype == np.float16
    for multimask, masks in ((True, 3), (False, 1)):
        logits, scores = model.decode(features[0], ALL, multimask=multimask)
        assert logits.shape == (len(ALL), masks, model.logits_size, model.logits_size)
        assert scores.shape == (len(ALL), masks)
        assert logits.dtype == scores.dtype == np.float32
        assert ((scores >= 0) & (scores <= 1)).all()


def test_features_are_the_embedding_in_half_precision(model, features):
    with torch.inference_mode():
        embedding = model.network.encode(torch.from_numpy(image(1)).float())[0]
    assert np.array_equal(features[1], embedding.half().numpy())


@pytest.mark.parametrize("chunk", [1, 3, 64])
def test_a_prompt_s_answer_does_not_depend_on_its_company(model, features, monkeypatch, chunk):
    monkeypatch.setattr(model, "chunk", chunk)
    mixed = ALL[::-1] + ALL
    together, scores = model.decode(features[0], mixed, multimask=True)
    for i, prompt in enumerate(mixed):
        alone, own_scores = model.decode(features[0], [prompt], multimask=True)
        np.testing.assert_allclose(together[i], alone[0], atol=1e-5)
        np.testing.assert_allclose(scores[i], own_scores[0], atol=2e-6)


@pytest.mark.parametrize("multimask", [True, False])
def test_each_prompt_may_have_an_image_of_its_own(model, features, multimask):
    own_images_change_nothing(model, features, [*ALL, *ALL[::-1]], multimask=multimask)


def test_prompts_below_the_wanted_score_are_not_drawn(model, features, monkeypatch):
    whole, scores = model.decode(features[0], ALL, multimask=True)
    drawn = []
    draw = model.network.mask_decoder.logits
    monkeypatch.setattr(
        model.network.mask_decoder,
        "logits",
        lambda tokens, cells, **options: (
            drawn.append(len(tokens)) or draw(tokens, cells, **options)
        ),
    )
    wanted = float(np.median(scores.max(1)) + 1e-4)
    for chunk in (1, 64):
        monkeypatch.setattr(model, "chunk", chunk)
        drawn.clear()
        logits, same = model.decode(features[0], ALL, multimask=True, min_score=wanted)
        kept = scores.max(1) >= wanted
        assert 0 < kept.sum() < len(ALL)
        assert sum(drawn) == kept.sum()
        np.testing.assert_allclose(same, scores, atol=2e-6)
        np.testing.assert_allclose(logits[kept], whole[kept], atol=1e-5)
        assert (logits[~kept] == UNDRAWN).all()


def test_every_tensor_matters(model):
    chosen = prompts("point")[:1] + prompts("points+box+mask")[1:]

    def answer(network):
        with torch.inference_mode():
            model.network = network
            embedding = model.encode(image())[0]
            return np.concatenate([
                part.ravel()
                for multimask in (True, False)
                for part in model.decode(embedding, chosen, multimask=multimask)
            ])  # fmt: skip

    network = model.network
    before = answer(network)
    try:
        for key, value in network.state_dict().items():
            if key.endswith("k_proj.bias"):
                continue  # moves all of a token's scores alike
            kept = value.clone()
            value += torch.randn(value.shape, generator=torch.Generator().manual_seed(0))
            assert np.abs(answer(network) - before).max() > 1e-3, key
            value.copy_(kept)
    finally:
        model.network = network


def test_what_has_no_data_is_the_reference_s_padding(model):
    """170 x 200 px of data: the rest is 0 after normalising."""
    tile = np.broadcast_to(np.array(FILL, np.uint8)[:, None, None], (1, 3, 256, 256)).copy()
    tile[..., :170, :200] = image()[..., :170, :200]
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    padded = torch.zeros(1, 3, 256, 256)
    padded[..., :170, :200] = (torch.from_numpy(tile[..., :170, :200]) - mean) / std
    with torch.inference_mode():
        expected = model.network.image_encoder(padded).half().numpy()
    assert np.array_equal(model.encode(tile), expected)


def test_windows_see_themselves_and_the_padding_alone():
    """Attention written out, window by window, with zeros where a window juts out."""
    torch.manual_seed(0)
    config = TINY.encoder
    attention = ImageAttention(config, 3).requires_grad_(False)
    for parameter in attention.parameters():
        parameter.copy_(torch.randn(parameter.shape) * 0.2)
    x = torch.randn(2, 5, 4, config.width)
    padded = F.pad(x, (0, 0, 0, 2, 0, 1))  # to 6 x 6
    expected = torch.empty_like(padded)
    side, channels = 3, config.width // config.heads
    for image_at, top, left in np.ndindex(2, 2, 2):
        window = np.s_[image_at, 3 * top : 3 * top + 3, 3 * left : 3 * left + 3]
        qkv = attention.qkv(padded[window].flatten(0, 1)).view(9, 3, config.heads, channels)
        heads = []
        for head in range(config.heads):
            q, k, v = qkv[:, :, head].unbind(1)
            scores = q @ k.T / channels**0.5
            for i, j in np.ndindex(9, 9):
                dy, dx = i // side - j // side, i % side - j % side
                scores[i, j] += q[i] @ (attention.rel_pos_h[dy + 2] + attention.rel_pos_w[dx + 2])
            heads.append(scores.softmax(-1) @ v)
        expected[window] = attention.proj(torch.cat(heads, -1)).view(3, 3, -1)
    torch.testing.assert_close(attention(x), expected[:, :5, :4], atol=1e-5, rtol=1e-4)


def test_masks_of_bounded_size_change_nothing(monkeypatch):
    torch.manual_seed(0)
    attention = ImageAttention(TINY.encoder, 4).requires_grad_(False)
    torch.nn.init.normal_(attention.rel_pos_h)
    x = torch.randn(2, 8, 8, TINY.encoder.width)
    at_once = attention(x)
    monkeypatch.setattr("geosam.model.vit.MASK_NUMBERS", 3 * 4**4)
    torch.testing.assert_close(attention(x), at_once, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("window", [3, 8])
def test_positions_as_channels_are_positions_as_a_mask(monkeypatch, window):
    """What a GPU does, on the CPU."""
    torch.manual_seed(0)
    attention = ImageAttention(TINY.encoder, window).requires_grad_(False)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 8, 8, TINY.encoder.width)
    expected = attention(x)
    monkeypatch.setattr("geosam.model.vit.masked", folded)
    torch.testing.assert_close(attention(x), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("batch", [1, 2, 16])
def test_images_at_once_are_images_one_by_one(model, monkeypatch, batch):
    images = np.concatenate([image(i) for i in range(3)])
    images[1, :, :100] = np.array(FILL)[:, None, None]
    monkeypatch.setattr(model, "batch", batch)
    together = model.encode(images)
    for i in range(3):
        alone = model.encode(images[i : i + 1])[0]
        np.testing.assert_allclose(together[i], alone, atol=2e-3, rtol=0)


def test_bf16_is_close_to_single_precision(model, features):
    light = Sam1Model(copy.deepcopy(model.network), "tiny-0", Engine(CPU.device, torch.bfloat16))
    assert light.id == "tiny-0-bf16"
    own = light.encode(np.concatenate([image(0), image(1)])).astype(np.float32)
    assert 0 < np.square(own - features).mean() ** 0.5 < 0.03 * features.std(dtype=np.float32)
    for multimask in (True, False):
        exact, scores = model.decode(features[0], ALL, multimask=multimask)
        logits, near = light.decode(features[0], ALL, multimask=multimask)
        assert np.abs(logits - exact).max() > 0
        assert np.abs(near - scores).max() < 0.05
        assert np.median(iou(logits, exact)) > 0.97
        assert np.percentile(iou(logits, exact), 5) > 0.93


def test_tokens_stay_exact_in_bf16(model):
    light = Sam1Model(copy.deepcopy(model.network), "tiny-0", Engine(CPU.device, torch.bfloat16))
    for key, value in light.network.state_dict().items():
        cells = re.search(r"image_encoder|norm4|upscale|norm8", key)
        assert value.dtype == (torch.bfloat16 if cells else torch.float32), key


def iou(one, two):
    one, two = one > 0, two > 0
    return (one & two).sum((-1, -2)) / (one | two).sum((-1, -2)).clip(1)


def test_sharing_the_image_changes_nothing():
    torch.manual_seed(0)
    network = Sam1(TINY).requires_grad_(False)
    transformer = network.mask_decoder.transformer
    for parameter in transformer.parameters():
        parameter.add_(torch.randn(parameter.shape) * 0.1)
    picture, code = torch.randn(1, 64, 6, 5), torch.randn(1, 64, 6, 5)
    tokens = torch.randn(3, 7, 64)
    expected = transformer(picture, code, tokens)
    parts = cells_of(picture), cells_of(code)
    image_parts = OneImage.of(transformer, *parts)
    for own in (None, image_parts.cells.expand(3, -1, -1)):
        for ours, theirs in zip(
            attend(transformer, image_parts, tokens, own), expected, strict=True
        ):
            torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)
    alone = OneImage.of(transformer, *parts, lone=True)
    assert alone.projections is None
    for ours, theirs in zip(attend(transformer, alone, tokens[1:2]), expected, strict=True):
        torch.testing.assert_close(ours, theirs[1:2], atol=2e-5, rtol=1e-4)


def test_half_precision_keeps_what_sharp_attention_sees():
    errors = []
    for seed in range(3):
        torch.manual_seed(seed)
        transformer = Sam1(TINY).requires_grad_(False).mask_decoder.transformer
        looks = [layer.cross_attn_token_to_image for layer in transformer.layers]
        for look in (*looks, transformer.final_attn_token_to_image):
            look.q_proj.weight.mul_(30)  # as sharp as a trained network's: few cells count
        picture, code = torch.randn(2, 1, 64, 16, 16)
        tokens = torch.randn(3, 7, 64)
        expected, _ = transformer(picture, code, tokens)
        for layer in transformer.layers:
            layer.norm4.to(torch.bfloat16)
        image_parts = OneImage.of(transformer, cells_of(picture), cells_of(code))
        found, _ = attend(transformer, image_parts, tokens)
        errors.append((found - expected).square().mean().sqrt())
    assert torch.stack(errors).mean() < 0.011  # torch's own attention 0.008, scores rounded 0.015


def test_upscaling_is_a_transposed_convolution():
    torch.manual_seed(0)
    layer = Upscale(6, 4).requires_grad_(False)
    layer.bias.copy_(torch.randn(4))
    x = torch.randn(2, 6, 3, 5)
    expected = F.conv_transpose2d(x, layer.weight, layer.bias, stride=2)  # (2, 4, 6, 10)
    parts = layer(x.permute(0, 2, 3, 1)).view(2, 3, 5, 2, 2, 4)
    torch.testing.assert_close(parts.permute(0, 5, 1, 3, 2, 4).reshape(2, 4, 6, 10), expected)
