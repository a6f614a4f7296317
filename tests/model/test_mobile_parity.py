"""MobileSAM's network gives what its authors' code gives, with the same weights.

Golden arrays, made from theirs by `make_mobile_golden.py`, check it where it is not installed.
"""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from geosam.model import mobile_weights
from geosam.model.config import MOBILE_SAM
from geosam.model.engine import CPU, Engine
from geosam.model.mobile_weights import build_mobile_sam, mobile_shapes
from geosam.model.sam1 import Sam1
from geosam.model.sam1_runtime import Sam1Model
from geosam.protocol import FILL
from tests.model.test_sam1_parity import CASES, EMBEDDING, check, decode
from tests.references import MobileSam, image, prompts
from tests.seeded import TINY_MOBILE, official_mobile

GOLDEN = Path(__file__).with_name("mobile_golden.npz")
LEFT_ASIDE = ("norm_head.weight", "norm_head.bias", "head.weight", "head.bias")


@pytest.fixture(scope="module")
def network():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mobile_weights, "MOBILE_SAM", TINY_MOBILE)
        network = build_mobile_sam(official_mobile(), Path("mobile.pt"))
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def embedding(network):
    return network.encode(torch.from_numpy(image()).float()).numpy()


@pytest.fixture(scope="module")
def mobile():
    return MobileSam()


def test_keys_and_numbers_are_the_official_ones(mobile):
    weights = official_mobile()
    others = mobile.weights.keys() - weights.keys()
    assert all(key.endswith(("num_batches_tracked", *LEFT_ASIDE)) for key in others)
    assert weights.keys() <= mobile.weights.keys()
    assert all(torch.equal(weights[key], mobile.weights[key]) for key in weights)


def test_published_shapes_are_the_official_ones():
    """How many heads there are, and the sides of windows, shows in these as well."""
    reference = MobileSam.untrained(MOBILE_SAM)
    with torch.device("meta"):
        network = Sam1(MOBILE_SAM)
    expected = {
        key: value.shape
        for key, value in reference.state_dict().items()
        if not key.endswith(("num_batches_tracked", *LEFT_ASIDE))
    }
    assert mobile_shapes(network) == expected


def test_embedding_is_the_reference_s(mobile, embedding):
    np.testing.assert_allclose(embedding, mobile.encode(image()), atol=EMBEDDING, rtol=0)


def test_a_tile_with_data_in_a_corner_is_a_smaller_image_to_the_reference(mobile, network):
    tile = np.broadcast_to(np.array(FILL, np.uint8)[:, None, None], (1, 3, 256, 256)).copy()
    tile[..., :170, :200] = image()[..., :170, :200]
    expected = mobile.encode(tile[..., :170, :200])
    features = Sam1Model(network, "tiny").encode(tile)
    np.testing.assert_allclose(features, expected, atol=2e-3, rtol=0)  # half precision


@pytest.mark.parametrize(("kind", "multimask"), CASES)
def test_masks_are_the_reference_s(mobile, network, embedding, kind, multimask):
    expected = mobile.decode(embedding, prompts(kind), multimask=multimask)
    check(decode(network, embedding, prompts(kind), multimask=multimask), expected)


def test_embedding_is_the_golden_one(embedding):
    with np.load(GOLDEN) as golden:
        np.testing.assert_allclose(embedding, golden["embedding"], atol=EMBEDDING, rtol=0)


@pytest.mark.parametrize(("kind", "multimask"), CASES)
def test_masks_are_the_golden_ones(network, kind, multimask):
    with np.load(GOLDEN) as golden:
        logits, scores = decode(network, golden["embedding"], prompts(kind), multimask=multimask)
        name = f"{kind} {multimask}"
        check(
            (logits[..., 1::4, 2::4], scores), (golden[f"{name} logits"], golden[f"{name} scores"])
        )


@pytest.mark.slow
def test_at_full_size_it_is_the_reference_s():
    reference = MobileSam(MOBILE_SAM)
    network = build_mobile_sam(reference.weights, Path("mobile_sam.pt")).requires_grad_(False)
    picture = image(size=1024)
    embedding = reference.encode(picture)
    own = network.encode(torch.from_numpy(picture).float()).numpy()
    np.testing.assert_allclose(own, embedding, atol=EMBEDDING, rtol=0)
    expected = reference.network.image_encoder.eval()(reference.network.preprocess(
        torch.from_numpy(picture).float()
    )).detach().numpy()  # fmt: skip
    assert np.array_equal(embedding, expected)  # what is written out in tests.references
    for kind, multimask in CASES[:4]:
        chosen = prompts(kind, 1024)
        expected = reference.decode(embedding, chosen, multimask=multimask)
        check(decode(network, embedding, chosen, multimask=multimask), expected)


def test_bf16_is_close_to_single_precision(network):
    exact = Sam1Model(network, "tiny-0")
    light = Sam1Model(copy.deepcopy(network), "tiny-0", Engine(CPU.device, torch.bfloat16))
    one, two = (model.encode(image()).astype(np.float32) for model in (exact, light))
    assert 0 < np.square(one - two).mean() ** 0.5 < 0.03 * one.std()
