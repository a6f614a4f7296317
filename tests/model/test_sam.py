"""The network's parts, checked by what must be true of them whatever the weights are."""

import numpy as np
import pytest
import torch

from geosam.model.config import NANO, SamConfig
from geosam.model.image_encoder import EfficientNetLite0, SameConv
from geosam.model.layers import LayerNorm2d
from geosam.model.prompt_batches import stack
from geosam.model.prompt_encoder import FourierCode, PromptEncoder, Prompts, draw_maps
from geosam.model.runtime import SamModel
from geosam.model.sam import Sam, pack, unpack
from geosam.model.transformer import Attention
from geosam.protocol import TilePrompt
from tests.model.alike import own_images_change_nothing
from tests.reference_nano import PlainNano

SMALL = SamConfig(size=64, width=32, skip_channels=(8, 4), heads=2, depth=2, mlp_width=64)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return SamModel(Sam(SMALL), "small-0")


@pytest.fixture(scope="module")
def features(model):
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64), dtype=np.uint8)
    return model.encode(images)


def click(*points, labels=None, **other):
    array = np.array(points, np.float32).reshape(-1, 2)
    return TilePrompt(array, np.ones(len(array), np.int64) if labels is None else labels, **other)


BOX = np.array([8, 10, 40, 50], np.float32)
MASK = np.full((16, 16), -8, np.float32)
KINDS = [
    click((10, 20)),
    click((10, 20), (30, 40), labels=np.array([1, 0])),
    click(box=BOX),
    click((10, 20), box=BOX),
    click(mask=MASK),
    click(mask=MASK, box=BOX),
    click((10, 20), box=BOX, mask=MASK),
]


def test_nano_is_small():
    count = sum(p.numel() for p in Sam(NANO).parameters())
    assert 3_500_000 < count < 4_500_000


def test_shapes(model, features):
    assert features.shape == (2, *model.feature_shape)
    assert features.dtype == np.float16
    assert features.flags.c_contiguous  # as stores keep them: nothing is turned again and again
    for multimask, masks in ((True, 3), (False, 1)):
        logits, scores = model.decode(features[0], KINDS, multimask=multimask)
        assert logits.shape == (len(KINDS), masks, model.logits_size, model.logits_size)
        assert scores.shape == (len(KINDS), masks)
        assert logits.dtype == scores.dtype == np.float32
        assert ((scores >= 0) & (scores <= 1)).all()


def test_features_are_those_of_the_encoder_written_plainly(model):
    images = np.random.default_rng(1).integers(0, 256, (2, 3, 64, 64), dtype=np.uint8)
    expected = pack(PlainNano(model.network.state_dict())(torch.from_numpy(images))).numpy()
    np.testing.assert_allclose(model.encode(images), expected, rtol=1e-3, atol=2e-4)


def test_packing_loses_nothing():
    torch.manual_seed(1)
    parts = Sam(SMALL).encode(torch.rand(2, 3, 64, 64) * 255)
    for one, two in zip(parts, unpack(pack(parts), SMALL), strict=True):
        assert torch.equal(one, two)


def test_a_prompt_s_answer_does_not_depend_on_its_company(model, features):
    together, scores = model.decode(features[0], KINDS * 3, multimask=True)
    for i, prompt in enumerate(KINDS):
        alone, own_scores = model.decode(features[0], [prompt], multimask=True)
        for at in (i, i + len(KINDS), i + 2 * len(KINDS)):
            np.testing.assert_allclose(together[at], alone[0], atol=2e-5)
            np.testing.assert_allclose(scores[at], own_scores[0], atol=2e-5)


def test_answers_are_those_that_training_learns_from(model):
    """Training multiplies in another order, which suits gradients."""
    torch.manual_seed(1)
    images, asked = torch.rand(1, 3, 64, 64) * 255, stack(KINDS[1:2] * 2)
    with torch.no_grad():
        parts = model.network.encode(images)
        quick = model.network.decode(parts, asked, multimask=True)
    plain = model.network.decode(parts, asked, multimask=True)
    for one, two in zip(quick, plain, strict=True):
        np.testing.assert_allclose(one, two, atol=2e-5)
        assert not torch.equal(one, two)  # else one of the two orders is not used


@pytest.mark.parametrize("multimask", [True, False])
def test_each_prompt_may_have_an_image_of_its_own(model, features, multimask):
    own_images_change_nothing(model, features, [*KINDS, *KINDS[::-1]], multimask=multimask)


@pytest.mark.parametrize("batch", [1, 2, 16])
def test_an_image_s_features_do_not_depend_on_its_company(model, monkeypatch, batch):
    monkeypatch.setattr(model, "batch", batch)
    images = np.random.default_rng(2).integers(0, 256, (3, 3, 64, 64), dtype=np.uint8)
    together = model.encode(images)
    for i in range(3):
        alone = model.encode(images[i : i + 1])[0]
        np.testing.assert_allclose(together[i], alone, atol=5e-3)


@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_every_part_of_a_prompt_matters(model, features, kind):
    first, _ = model.decode(features[0], [KINDS[kind]], multimask=False)
    for other in range(len(KINDS)):
        if other != kind:
            second, _ = model.decode(features[0], [KINDS[other]], multimask=False)
            assert np.abs(first - second).max() > 1e-3


def test_the_order_of_points_does_not_matter(model, features):
    labels = np.array([1, 0])
    one, _ = model.decode(features[0], [click((9, 8), (30, 40), labels=labels)], multimask=False)
    two, _ = model.decode(
        features[0], [click((30, 40), (9, 8), labels=labels[::-1].copy())], multimask=False
    )
    np.testing.assert_allclose(one, two, atol=2e-5)


def test_the_encoder_reads_boxes_and_points_at_pixel_centres():
    encoder = PromptEncoder(SMALL)
    token = encoder.sparse(Prompts(torch.tensor([[[7.5, 23.5]]]), torch.ones(1, 1), None, None))
    cell = encoder.image_code(4, 4)[0, :, 1, 0]  # its centre is at corner-based (8, 24)
    torch.testing.assert_close(token[0, 0] - encoder.point_embeddings[1], cell)


def test_maps_show_what_was_prompted():
    points = torch.tensor([[[9.5, 5.5], [21.5, 5.5]]])  # centres of cells (2, 1) and (5, 1)
    prompts = Prompts(points, torch.tensor([[1, 0]]), torch.tensor([[3.5, 7.5, 13.5, 15.5]]), None)
    maps = draw_maps(prompts, 8, 8)[0]
    sharp_on, sharp_off, wide_on, wide_off, box, mask = maps
    assert divmod(int(sharp_on.argmax()), 8) == (1, 2)
    assert divmod(int(sharp_off.argmax()), 8) == (1, 5)
    assert sharp_on.max() == wide_on.max() == 1
    assert (wide_off >= sharp_off).all()
    assert box[2:4, 1:3].min() == 1  # rows 8 to 16, columns 4 to 12 of the image
    assert box[2:4, 3].tolist() == [0.5, 0.5]  # columns 12 to 14 of 12 to 16
    assert box.sum() == 5
    assert mask.abs().max() == 0


def test_a_mask_prompt_is_drawn_as_its_probability():
    points, labels = torch.zeros(1, 0, 2), torch.zeros(1, 0)
    mask = torch.tensor([[[-100.0, 0.0], [100.0, 0.0]]])
    maps = draw_maps(Prompts(points, labels, None, mask), 2, 2)
    assert maps[0, 5].tolist() == [[-1, 0], [1, 0]]
    assert maps[0, :5].abs().max() == 0


@pytest.mark.parametrize("kernel", [3, 5])
def test_zeros_before_a_kernel_are_padding(kernel):
    """Of many channels apart, as of many together, one of which is not 0."""
    torch.manual_seed(0)
    apart = SameConv(4, 4, kernel, 2, groups=4).requires_grad_(False)
    together = SameConv(4, 4, kernel, 2).requires_grad_(False)
    together.weight.copy_(torch.diag_embed(apart.weight[:, 0].permute(1, 2, 0)).permute(2, 3, 0, 1))
    together.bias.copy_(apart.bias)
    x = torch.randn(2, 4, 12, 8)
    torch.testing.assert_close(apart(x), together(x))


def test_same_padding_is_tensorflow_s():
    conv = SameConv(1, 1, 3, 2)
    with torch.no_grad():
        conv.weight.fill_(0)
        conv.weight[0, 0, 1, 1] = 1
        conv.bias.fill_(0)
        image = torch.arange(16.0).reshape(1, 1, 4, 4)
        assert conv(image).flatten().tolist() == [5, 7, 13, 15]


def test_attention_is_the_textbook_s():
    torch.manual_seed(3)
    attention = Attention(8, heads=2)
    q, k, v = torch.rand(1, 3, 8), torch.rand(1, 5, 8), torch.rand(1, 5, 8)
    heads = []
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        qh, kh, vh = (
            layer(x)[..., part]
            for layer, x in ((attention.q_proj, q), (attention.k_proj, k), (attention.v_proj, v))
        )
        heads.append(torch.softmax(qh @ kh.mT / 2, -1) @ vh)
    torch.testing.assert_close(attention(q, k, v), attention.out_proj(torch.cat(heads, -1)))


def test_layer_norm_is_over_channels():
    norm = LayerNorm2d(16)
    out = norm(torch.rand(2, 16, 3, 5) * 7)
    torch.testing.assert_close(out.mean(1), torch.zeros(2, 3, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.var(1, correction=0), torch.ones(2, 3, 5), atol=1e-4, rtol=0)


def test_the_trunk_has_strides_4_to_32():
    shapes = [tuple(x.shape[1:]) for x in EfficientNetLite0()(torch.zeros(1, 3, 64, 64))]
    assert shapes == [(24, 16, 16), (40, 8, 8), (112, 4, 4), (320, 2, 2)]


def test_places_are_coded_in_single_precision_while_all_else_is_not():
    code, places = FourierCode(32), torch.rand(50, 2)
    exact = code(places)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(code(places), exact)
