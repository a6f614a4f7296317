"""SAM's network gives what the published implementations give, with the same weights.

Golden arrays, made from Meta's by `make_sam1_golden.py`, check it where neither is installed.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from geosam.model import sam1_weights
from geosam.model.config import VIT_B, VIT_H, VIT_L
from geosam.model.prompt_batches import stack
from geosam.model.published import published_shapes
from geosam.model.sam1 import Sam1
from geosam.model.sam1_runtime import Sam1Model
from geosam.model.sam1_weights import build_sam1, meta_names
from geosam.protocol import FILL, TilePrompt
from tests.references import KINDS, HuggingFace, Meta, image, meta_shapes, prompts
from tests.seeded import TINY, in_hugging_face, official

EMBEDDING, LOGITS, SCORES = 5e-5, 2e-5, 5e-6  # largest differences
GOLDEN = Path(__file__).with_name("sam1_golden.npz")
CASES = [(kind, multimask) for kind in KINDS for multimask in (True, False)]


@pytest.fixture(scope="module")
def network():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sam1_weights, "CONFIGS", {"tiny": TINY})
        return build_sam1(official(), Path("tiny.pth")).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def embedding(network):
    return network.encode(torch.from_numpy(image()).float()).numpy()


@pytest.fixture(scope="module")
def meta():
    return Meta()


@pytest.fixture(scope="module")
def hugging_face():
    reference = HuggingFace()
    weights = in_hugging_face(official())
    weights["prompt_encoder.shared_embedding.positional_embedding"] = weights[
        "shared_image_embedding.positional_embedding"
    ]
    reference.network.load_state_dict(weights, strict=True)
    return reference


def decode(network, embedding, chosen, *, multimask):
    tensor = torch.from_numpy(embedding)
    image = network.prepare(tensor, network.prompt_encoder.cells_code())
    looked = network.look(tensor, image, stack(chosen))
    logits = network.mask_decoder.logits(*looked, multimask=multimask)
    scores = network.mask_decoder.scores(looked.tokens, multimask=multimask)
    return logits.numpy(), scores.numpy()


def check(found, expected):
    for ours, theirs, tolerance in zip(found, expected, (LOGITS, SCORES), strict=True):
        assert theirs.std() > 1e-3
        np.testing.assert_allclose(ours, theirs, atol=tolerance, rtol=0)


def test_meta_s_keys_are_the_official_ones(meta):
    weights = official()
    assert weights.keys() == meta.weights.keys()
    assert all(torch.equal(weights[key], meta.weights[key]) for key in weights)


@pytest.mark.parametrize(
    ("name", "config"), [("vit_b", VIT_B), ("vit_l", VIT_L), ("vit_h", VIT_H)], ids="BLH"
)
def test_published_shapes_are_meta_s(name, config):
    """Which blocks see the whole image, and how many heads there are, shows in these as well."""
    expected = meta_shapes(name)
    with torch.device("meta"):
        assert published_shapes(Sam1(config), meta_names) == expected


def test_embedding_is_meta_s(meta, embedding):
    np.testing.assert_allclose(embedding, meta.encode(image()), atol=EMBEDDING, rtol=0)


def test_a_tile_with_data_in_a_corner_is_a_smaller_image_to_meta(meta, network):
    tile = np.broadcast_to(np.array(FILL, np.uint8)[:, None, None], (1, 3, 256, 256)).copy()
    tile[..., :170, :200] = image()[..., :170, :200]
    expected = meta.encode(tile[..., :170, :200])
    features = Sam1Model(network, "tiny").encode(tile)
    np.testing.assert_allclose(features, expected, atol=2e-3, rtol=0)  # half precision


def test_embedding_is_that_of_transformers(hugging_face, embedding):
    np.testing.assert_allclose(embedding, hugging_face.encode(image()), atol=EMBEDDING, rtol=0)


@pytest.mark.parametrize(("kind", "multimask"), CASES)
def test_masks_are_meta_s(meta, network, embedding, kind, multimask):
    expected = meta.decode(embedding, prompts(kind), multimask=multimask)
    check(decode(network, embedding, prompts(kind), multimask=multimask), expected)


@pytest.mark.parametrize(("kind", "multimask"), CASES)
def test_masks_are_those_of_transformers(hugging_face, network, embedding, kind, multimask):
    expected = hugging_face.decode(embedding, prompts(kind), multimask=multimask)
    check(decode(network, embedding, prompts(kind), multimask=multimask), expected)


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
    model = Sam1Model(network, "tiny")
    features = model.encode(image())[0]
    logits, scores = model.decode(features, mixed, multimask=multimask)
    for i, prompt in enumerate(mixed):
        expected = meta.decode(features[None].astype(np.float32), [prompt], multimask=multimask)
        np.testing.assert_allclose(logits[i], expected[0][0], atol=LOGITS, rtol=0)
        np.testing.assert_allclose(scores[i], expected[1][0].clip(0, 1), atol=SCORES, rtol=0)
    assert model.decode(features, [], multimask=multimask)[0].shape[0] == 0


def test_embedding_is_the_golden_one(embedding):
    with np.load(GOLDEN) as golden:
        np.testing.assert_allclose(embedding, golden["embedding"], atol=EMBEDDING, rtol=0)


@pytest.mark.parametrize(("kind", "multimask"), CASES)
def test_masks_are_the_golden_ones(network, kind, multimask):
    with np.load(GOLDEN) as golden:
        logits, scores = decode(network, golden["embedding"], prompts(kind), multimask=multimask)
        name = f"{kind} {multimask}"
        check(
            (logits[..., 1::3, 2::3], scores), (golden[f"{name} logits"], golden[f"{name} scores"])
        )


@pytest.mark.slow
def test_vit_b_at_full_size_is_meta_s():
    reference = Meta(VIT_B)
    network = build_sam1(reference.weights, Path("vit_b.pth")).eval().requires_grad_(False)
    picture = image(size=1024)
    embedding = reference.encode(picture)
    own = network.encode(torch.from_numpy(picture).float()).numpy()
    np.testing.assert_allclose(own, embedding, atol=EMBEDDING, rtol=0)
    for kind, multimask in CASES:
        chosen = prompts(kind, 1024)
        expected = reference.decode(embedding, chosen, multimask=multimask)
        check(decode(network, embedding, chosen, multimask=multimask), expected)
