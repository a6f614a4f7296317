"""SAM 2's network gives what the published implementations give, with the same weights.

Golden arrays, made from the package sam2 by `make_sam2_golden.py`, check it where it is not
installed.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from geosam.model import sam2_weights
from geosam.model.config import HIERA_TINY
from geosam.model.image_encoder import Features
from geosam.model.prompt_batches import stack
from geosam.model.sam import pack, unpack
from geosam.model.sam2_runtime import MOST, Sam2Model
from geosam.model.sam2_weights import build_sam2
from geosam.protocol import TilePrompt
from tests.references import KINDS, image, prompts
from tests.references_sam2 import HuggingFace2, Meta2, arrays
from tests.seeded import TINY_2, in_hugging_face_2, loud, official_2

FEATURES, LOGITS, SCORES = 5e-5, 1e-4, 5e-6  # largest differences
GOLDEN = Path(__file__).with_name("sam2_golden.npz")
CASES = [(kind, multimask) for kind in KINDS for multimask in (True, False)]


def tiny(weights):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sam2_weights, "CONFIGS_2", {"tiny": TINY_2})
        return build_sam2(weights, Path("tiny.pt")).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def network():
    return tiny(official_2())


@pytest.fixture(scope="module")
def features(network):
    return arrays(network.encode(torch.from_numpy(image()).float()))


@pytest.fixture(scope="module")
def meta():
    return Meta2()


@pytest.fixture(scope="module")
def hugging_face():
    return hugging_face_with(official_2())


def hugging_face_with(weights):
    reference = HuggingFace2()
    code = "shared_image_embedding.positional_embedding"
    weights = in_hugging_face_2(weights)
    weights["prompt_encoder.shared_embedding.positional_embedding"] = weights[code]
    found = reference.network.load_state_dict(weights, strict=False)
    assert not found.unexpected_keys
    assert all(key.startswith("mask_decoder.pred_obj_score_head.") for key in found.missing_keys)
    return reference


def decode(network, features, chosen, *, multimask):
    packed = pack(Features(*(torch.from_numpy(part) for part in features)))
    image_parts = network.prepare(packed, network.prompt_encoder.cells_code())
    looked = network.look(image_parts, stack(chosen))
    decoder = network.mask_decoder
    estimates = decoder.estimates(looked.tokens)
    answer = decoder.answer(*looked, image_parts.skips, estimates, multimask=multimask)
    return [part.numpy() for part in answer]


def check_features(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert theirs.std() > 0.1
        np.testing.assert_allclose(ours, theirs, atol=FEATURES, rtol=0)


def check(found, expected, loudness=1):
    limits = ((1e-2, loudness * LOGITS), (1e-4, SCORES))
    for ours, theirs, (least, most) in zip(found, expected, limits, strict=True):
        assert theirs.std() > least
        np.testing.assert_allclose(ours, theirs, atol=most, rtol=0)


def test_features_are_meta_s(meta, features):
    check_features(features, meta.encode(image()))


def test_features_are_those_of_transformers(hugging_face, features):
    check_features(features, hugging_face.encode(image()))


@pytest.mark.parametrize(("kind", "multimask"), CASES)
def test_masks_are_meta_s(meta, network, features, kind, multimask):
    expected = meta.decode(features, prompts(kind), multimask=multimask)
    check(decode(network, features, prompts(kind), multimask=multimask), expected)


@pytest.mark.parametrize(("kind", "multimask"), CASES)
def test_masks_are_those_of_transformers(hugging_face, network, features, kind, multimask):
    expected = hugging_face.decode(features, prompts(kind), multimask=multimask)
    check(decode(network, features, prompts(kind), multimask=multimask), expected)


@pytest.mark.parametrize("loudness", [6, 100])
def test_single_masks_are_chosen_as_meta_s(meta, features, loudness):
    meta.network.load_state_dict(loud(meta.weights, loudness))
    try:
        check_single_masks(meta, features, loudness)
    finally:
        meta.network.load_state_dict(meta.weights)


@pytest.mark.parametrize("loudness", [6, 100])
def test_single_masks_are_chosen_as_in_transformers(features, loudness):
    check_single_masks(hugging_face_with(loud(official_2(), loudness)), features, loudness)


def check_single_masks(reference, features, loudness):
    """With the loudness of 6 some are stable and some are not; with that of 100 all are."""
    model = Sam2Model(tiny(loud(official_2(), loudness)), "tiny")
    packed = pack(Features(*(torch.from_numpy(part) for part in features)))[0].half().numpy()
    kept = arrays(unpack(torch.from_numpy(packed)[None].float(), TINY_2))
    chosen = [prompt for kind in KINDS for prompt in prompts(kind)]
    logits, scores = model.decode(packed, chosen, multimask=False)
    expected = reference.decode(kept, chosen, multimask=False)
    check((logits, scores), (expected[0].clip(-MOST, MOST), expected[1]), loudness)
    of_three = scores[:, 0] == model.decode(packed, chosen, multimask=True)[1].max(1)
    assert of_three.any() == (loudness == 6) and not of_three.all()
    assert np.abs(logits).max() == MOST


@pytest.mark.parametrize("multimask", [True, False])
def test_prompts_of_unequal_counts_in_one_call_are_meta_s(meta, network, multimask):
    rng = np.random.default_rng(0)
    mixed = [
        TilePrompt(
            rng.uniform(0, 256, (count, 2)).astype(np.float32),
            rng.integers(0, 2, count),
            np.array([20, 30, 120, 200], np.float32) if boxed else None,
            rng.normal(0, 4, (64, 64)).astype(np.float32) if masked else None,
        )
        for count in (3, 1, 0, 2, 1)
        for boxed in (True, False)
        for masked in (False, True)
        if count or boxed or masked
    ]
    model = Sam2Model(network, "tiny")
    packed = model.encode(image())[0]
    kept = arrays(unpack(torch.from_numpy(packed)[None].float(), TINY_2))
    logits, scores = model.decode(packed, mixed, multimask=multimask)
    expected = meta.decode(kept, mixed, multimask=multimask)
    check((logits, scores), expected)
    assert model.decode(packed, [], multimask=multimask)[0].shape[0] == 0


def golden_features(golden):
    return arrays(unpack(torch.from_numpy(golden["features"]), TINY_2))


def test_features_are_the_golden_ones(features):
    packed = pack(Features(*(torch.from_numpy(part) for part in features)))
    with np.load(GOLDEN) as golden:
        np.testing.assert_allclose(packed, golden["features"], atol=FEATURES, rtol=0)


@pytest.mark.parametrize(("kind", "multimask"), CASES)
def test_masks_are_the_golden_ones(network, kind, multimask):
    with np.load(GOLDEN) as golden:
        logits, scores = decode(
            network, golden_features(golden), prompts(kind), multimask=multimask
        )
        name = f"{kind} {multimask}"
        check(
            (logits[..., 1::3, 2::3], scores), (golden[f"{name} logits"], golden[f"{name} scores"])
        )


@pytest.mark.slow
def test_hiera_tiny_at_full_size_is_meta_s():
    reference = Meta2(HIERA_TINY)
    network = build_sam2(reference.weights, Path("hiera.pt")).eval().requires_grad_(False)
    picture = image(size=1024)
    features = reference.encode(picture)
    check_features(arrays(network.encode(torch.from_numpy(picture).float())), features)
    for kind, multimask in CASES:
        chosen = prompts(kind, 1024)
        expected = reference.decode(features, chosen, multimask=multimask)
        check(decode(network, features, chosen, multimask=multimask), expected)
