"""SAM 2 behind the protocol, and what must be true of it whatever the weights are."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import geosam
from geosam.errors import ModelError
from geosam.model import sam2_runtime, sam2_weights
from geosam.model.config import HIERA_BASE_PLUS, HIERA_LARGE, HIERA_SMALL, HIERA_TINY
from geosam.model.engine import Engine
from geosam.model.hiera import WindowAttention, pooled, through
from geosam.model.sam import pack
from geosam.model.sam2 import Sam2
from geosam.model.sam2_decoder import is_stable
from geosam.model.sam2_runtime import UNDRAWN, Sam2Model
from geosam.model.sam2_weights import build_sam2
from geosam.prompts import PromptSet
from tests.fakes import discs, write_raster
from tests.model.alike import own_images_change_nothing
from tests.references import KINDS, image, prompts
from tests.seeded import TINY_2, loud, official_2

ALL = [prompt for kind in KINDS for prompt in prompts(kind)]


def tiny(weights):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sam2_weights, "CONFIGS_2", {"tiny": TINY_2})
        return Sam2Model(build_sam2(weights, Path("tiny.pt")), "tiny-0")


@pytest.fixture(scope="module")
def model():
    return tiny(official_2())


@pytest.fixture(scope="module")
def features(model):
    return model.encode(np.concatenate([image(0), image(1)]))


@pytest.mark.parametrize(
    ("config", "millions"),
    [(HIERA_TINY, 31.3), (HIERA_SMALL, 38.4), (HIERA_BASE_PLUS, 73.2), (HIERA_LARGE, 216.8)],
    ids=["tiny", "small", "base-plus", "large"],
)
def test_published_sizes(config, millions):
    with torch.device("meta"):
        network = Sam2(config)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)
    assert (config.size, config.logits_size) == (1024, 256)
    assert (config.packed_channels, config.grid) == (1024, 64)


def test_shapes(model, features):
    assert features.shape == (2, *model.feature_shape) and features.dtype == np.float16
    for multimask, masks in ((True, 3), (False, 1)):
        logits, scores = model.decode(features[0], ALL, multimask=multimask)
        assert logits.shape == (len(ALL), masks, model.logits_size, model.logits_size)
        assert scores.shape == (len(ALL), masks)
        assert logits.dtype == scores.dtype == np.float32
        assert ((scores > 0) & (scores < 1)).all()


def test_a_batch_of_images_is_encoded_as_one_by_one(model, features):
    pictures = torch.from_numpy(np.concatenate([image(0), image(1)])).float()
    with torch.inference_mode():
        together = pack(model.network.encode(pictures)).numpy()
        alone = [pack(model.network.encode(pictures[i : i + 1]))[0].numpy() for i in range(2)]
    np.testing.assert_allclose(together, np.stack(alone), atol=2e-5, rtol=0)
    assert np.array_equal(features, np.stack(alone).astype(np.float16))


def test_half_precision_of_features_hardly_moves_masks(model, features):
    with torch.inference_mode():
        exact = pack(model.network.encode(torch.from_numpy(image(0)).float()))
    assert np.abs(features[0]).max() < 100  # of 65504
    kept = torch.from_numpy(features[:1])
    ious = []
    for prompt in ALL:
        masks = []
        for packed in (exact, kept):
            with torch.inference_mode():
                shared = model.network.prepare(packed, model.code)
                looked = model.network.look(shared, sam2_runtime.stack([prompt]))
                decoder = model.network.mask_decoder
                masks.append(
                    decoder.answer(
                        *looked, shared.skips, decoder.estimates(looked.tokens), multimask=True
                    )[0].numpy()
                )
        assert np.abs(masks[0] - masks[1]).max() < 0.02
        ious.append(
            np.sum((masks[0] > 0) & (masks[1] > 0)) / np.sum((masks[0] > 0) | (masks[1] > 0))
        )
    assert min(ious) > 0.995


def test_features_in_bf16_are_told_apart_and_nearly_the_same(features):
    engine = Engine(torch.device("cpu"), torch.bfloat16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sam2_weights, "CONFIGS_2", {"tiny": TINY_2})
        network = build_sam2(official_2(), Path("tiny.pt"))
    model = Sam2Model(network, "tiny-0", engine)
    assert (model.id, model.precision, model.device) == ("tiny-0-bf16", "bf16", "cpu")
    exact, light = features[0].astype(np.float32), model.encode(image(0))[0].astype(np.float32)
    assert 0 < np.square(exact - light).mean() / np.square(exact).mean() < 0.1**2
    logits, scores = model.decode(features[0], ALL, multimask=True)
    assert logits.dtype == scores.dtype == np.float32


def test_features_beyond_half_precision_are_refused():
    weights = official_2()
    weights["image_encoder.neck.convs.1.conv.weight"] *= 1e5
    with pytest.raises(ModelError, match=r"'tiny-0': features beyond the range"):
        tiny(weights).encode(image())


@pytest.mark.parametrize("chunk", [1, 3, 64])
@pytest.mark.parametrize("multimask", [True, False])
def test_a_prompt_s_answer_does_not_depend_on_its_company(
    model, features, monkeypatch, chunk, multimask
):
    monkeypatch.setattr(model, "chunk", chunk)
    mixed = ALL[::-1] + ALL
    together, scores = model.decode(features[0], mixed, multimask=multimask)
    for i, prompt in enumerate(mixed):
        alone, own_scores = model.decode(features[0], [prompt], multimask=multimask)
        np.testing.assert_allclose(together[i], alone[0], atol=1e-5)
        np.testing.assert_allclose(scores[i], own_scores[0], atol=2e-6)


@pytest.mark.parametrize("multimask", [True, False])
def test_each_prompt_may_have_an_image_of_its_own(model, features, multimask):
    own_images_change_nothing(model, features, [*ALL, *ALL[::-1]], multimask=multimask)


@pytest.mark.parametrize("multimask", [True, False])
def test_prompts_below_the_wanted_score_are_not_drawn(model, features, multimask):
    whole, scores = model.decode(features[0], ALL, multimask=multimask)
    wanted = float(np.median(scores.max(1)) + 1e-4)
    logits, same = model.decode(features[0], ALL, multimask=multimask, min_score=wanted)
    kept = same.max(1) >= wanted
    assert 0 < kept.sum() < len(ALL)
    assert not (scores.max(1) >= wanted)[~kept].any()
    np.testing.assert_allclose(same[kept], scores[kept], atol=2e-6)
    np.testing.assert_allclose(logits[kept], whole[kept], atol=1e-5)
    assert (logits[~kept] == UNDRAWN).all()


def test_every_tensor_matters(features):
    model = tiny(loud(official_2(), 12))  # or no single mask would be stable
    chosen = prompts("point")[:1] + prompts("points+box+mask")[1:]
    picture = torch.from_numpy(image()).float()

    def answer(key):
        if key.startswith("image_encoder."):
            with torch.inference_mode():
                return pack(model.network.encode(picture)).numpy().ravel()
        answers = (model.decode(features[0], chosen, multimask=which) for which in (True, False))
        return np.concatenate([part.ravel() for pair in answers for part in pair])

    before = {key: answer(key) for key in ("image_encoder.", "")}
    for key, value in model.network.state_dict().items():
        if key.endswith("k_proj.bias"):
            continue  # moves all of a token's scores alike
        kept = value.clone()
        value += torch.randn(value.shape, generator=torch.Generator().manual_seed(0))
        part = "image_encoder." if key.startswith("image_encoder.") else ""
        assert np.abs(answer(key) - before[part]).max() > 1e-3, key
        value.copy_(kept)


@pytest.mark.parametrize("pool", [True, False])
def test_windows_see_themselves_and_the_padding_alone(pool):
    """Attention written out, window by window, with zeros where a window juts out."""
    torch.manual_seed(0)
    attention = WindowAttention(6, 8, 2, 4, pool=pool).requires_grad_(False)
    x = torch.randn(2, 6, 10, 6)
    padded = F.pad(x, (0, 0, 0, 2, 0, 2))  # to 8 x 12
    step = 2 if pool else 1
    expected = torch.empty(2, 8 // step, 12 // step, 8)
    for at, top, left in np.ndindex(2, 2, 3):
        window = padded[at, 4 * top : 4 * top + 4, 4 * left : 4 * left + 4]
        qkv = attention.qkv(window.flatten(0, 1)).view(16, 3, 2, 4)
        heads = []
        for head in range(2):
            q, k, v = qkv[:, :, head].unbind(1)
            if pool:
                q = F.max_pool2d(q.T.view(1, 4, 4, 4), 2).view(4, 4).T
            heads.append((q @ k.T / 2).softmax(-1) @ v)
        side = 4 // step
        place = np.s_[at, side * top : side * (top + 1), side * left : side * (left + 1)]
        expected[place] = attention.proj(torch.cat(heads, -1)).view(side, side, 8)
    expected = expected[:, : 6 // step, : 10 // step]
    torch.testing.assert_close(attention(x), expected, atol=1e-5, rtol=1e-4)


def test_convolutions_in_one_product_are_those_in_turn():
    torch.manual_seed(0)
    first, second = torch.nn.Conv2d(5, 7, 1), torch.nn.Conv2d(7, 3, 1)
    x = torch.randn(2, 5, 4, 6)
    expected = second(first(x)).permute(0, 2, 3, 1)
    torch.testing.assert_close(through(x.permute(0, 2, 3, 1), first, second), expected)


def test_pooling_takes_maxima():
    x = torch.arange(2 * 4 * 6 * 3).view(2, 4, 6, 3).float().flip(2)
    expected = F.max_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    assert torch.equal(pooled(x), expected)


def test_stability_is_a_share_of_areas():
    masks = torch.full((4, 10, 20), -1.0)
    masks[0] = 0.06  # all of it stays
    masks[1, :5], masks[1, 5, :2] = 1.0, 0.0  # 100 of 102
    masks[2, :5], masks[2, 5, :3] = 1.0, 0.0  # 100 of 103
    assert is_stable(masks).tolist() == [True, True, False, True]  # nothing at all is stable


def test_from_a_raster_to_polygons(model, tmp_path):
    """All the way, and what lies in the store is what the network makes of the tile."""
    raster = write_raster(tmp_path / "a.tif", discs((300, 340), (100, 100, 40), (220, 250, 30)))
    store = geosam.encode(model, raster, tmp_path / "f.zarr", scales=[1])
    tile = store.grid(1)[0, 0]
    assert store[tile].shape == model.feature_shape
    box = (516_316, 5_160_710, 516_376, 5_160_770)
    asked = PromptSet.of(points=[(516_196, 5_160_860)], boxes=[box])
    found = geosam.segment(model, raster, asked, store=store.path)
    assert found["status"].isin(["ok", "truncated"]).all() and len(found) == 2
    assert found.geometry.is_valid.all() and (found["area_m2"] > 0).all()
    raster.unlink()
    again = geosam.segment(model, store, asked)
    assert again.geometry.geom_equals_exact(found.geometry, 0).all()
