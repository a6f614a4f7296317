"""Where a prompt is decoded."""

import numpy as np
import pytest
import torch

from geosam.model.config import SamConfig
from geosam.model.focus import Focus, gather
from geosam.model.runtime import UNSEEN, SamModel
from geosam.model.sam import Sam, pack, unpack
from geosam.protocol import TilePrompt

SMALL = SamConfig(size=128, width=32, skip_channels=(8, 4), heads=2, depth=2, mlp_width=64)


def box(xmin, ymin, xmax, ymax):
    corners = np.array([xmin, ymin, xmax, ymax], np.float32)
    return TilePrompt(np.zeros((0, 2), np.float32), np.zeros(0, np.int64), corners)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (box(60, 60, 68, 68), (32, 32, 64)),
        (box(0, 0, 10, 10), (0, 0, 64)),
        (box(110, 70, 127, 90), (64, 48, 64)),
        (box(10, 10, 80, 20), (0, 0, 128)),
    ],
)
def test_a_small_prompt_is_looked_at_closely(prompt, expected):
    focus = Focus.on(prompt, 128)
    assert (focus.x, focus.y, focus.side) == expected


def test_a_prompt_moves_with_its_focus():
    mask = np.arange(32 * 32, dtype=np.float32).reshape(32, 32)
    prompt = TilePrompt(np.float32([[70, 50]]), np.array([1]), np.float32([66, 48, 90, 60]), mask)
    moved = Focus(64, 48, 64, 128).shift(prompt)
    assert moved.points.tolist() == [[6, 2]]
    assert moved.box.tolist() == [2, 0, 26, 12]
    assert (moved.mask == mask[12:28, 16:32]).all()


def test_features_are_cut_at_every_stride():
    torch.manual_seed(0)
    features = Sam(SMALL).encode(torch.rand(1, 3, 128, 128))
    packed = gather([Focus(64, 48, 64, 128), Focus(0, 0, 64, 128)], [pack(features)] * 2)
    (a, b, c) = unpack(packed, SMALL)
    assert torch.equal(a[0], features.embedding[0, :, 3:7, 4:8])
    assert torch.equal(b[0], features.stride8[0, :, 6:14, 8:16])
    assert torch.equal(c[1], features.stride4[0, :, :16, :16])


def test_only_edges_beyond_which_the_image_goes_on_count():
    focus = Focus(64, 0, 64, 128)
    for edge, counts in ((np.s_[0], False), (np.s_[-1], True), (np.s_[:, 0], True)):
        logits = np.full((16, 16), -1, np.float32)
        logits[edge] = 1
        logits[[0, -1, 0, -1], [0, 0, -1, -1]] = -1
        assert focus.is_left_by(logits) is counts
    assert not Focus.whole(128).is_left_by(np.ones((32, 32), np.float32))


def test_an_object_that_leaves_its_focus_is_decoded_in_the_whole_image(monkeypatch):
    torch.manual_seed(0)
    model = SamModel(Sam(SMALL), "small-0")
    features = model.encode(np.zeros((1, 3, 128, 128), np.uint8))[0]
    sides = []
    decode = model.network.decode

    def positive(parts, prompts, **options):
        logits, scores = decode(parts, prompts, **options)
        sides.append(logits.shape[-1] * 4)
        return logits.abs() + 1, scores

    monkeypatch.setattr(model.network, "decode", positive)
    logits, _ = model.decode(features, [box(60, 60, 68, 68)], multimask=False)
    assert sides == [64, 128]
    assert (logits > 0).all()

    monkeypatch.setattr(model.network, "decode", lambda *a, **k: (-decode(*a, **k)[0].abs() - 1,
                                                                  decode(*a, **k)[1]))  # fmt: skip
    logits, _ = model.decode(features, [box(60, 60, 68, 68)], multimask=False)
    seen = logits[0, 0] != UNSEEN
    assert seen[8:24, 8:24].all()
    assert seen.sum() == 256
