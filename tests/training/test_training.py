"""Training: what is learnt from prompts, and runs that are cut and go on as if not."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from geosam.errors import TrainingError
from geosam.model import MODELS, load_model
from geosam.model.image_encoder import EfficientNetLite0
from geosam.protocol import MASK_LOGIT
from geosam.training.batches import Batches, extent, seen_twice
from geosam.training.imagenet import BATCH_NORM_EPS, fold, load_imagenet
from geosam.training.steps import (
    SCORE_WEIGHT,
    batch_loss,
    choice_loss,
    mask_loss,
    next_click,
    rough,
    unsteadiness,
)
from geosam.training.train import Plan, Run, set_rates, train
from tests.training.squares import scene


def test_a_rough_outline_is_the_mask_displaced():
    masks = torch.full((2, 32, 32), -7.0)
    masks[:, 10:20, 8:22] = 5
    torch.manual_seed(3)
    drawn = rough(masks)
    assert set(drawn.unique().tolist()) == {-MASK_LOGIT, MASK_LOGIT}
    assert (drawn > 0).sum() == (masks > 0).sum()
    both = ((drawn > 0) & (masks > 0)).sum() / ((drawn > 0) | (masks > 0)).sum()
    assert 0.5 < both <= 1


def test_answers_that_move_with_the_ground_are_steady():
    ground = torch.full((1, 2, 20, 20), -30.0)
    ground[:, :, 6:12, 6:14] = 30
    still, moved = ground[..., :16, :16], ground[..., 3:19, 1:17]
    scores = torch.tensor([[0.8, 0.5], [0.8, 0.5]])
    assert unsteadiness(torch.cat([still, moved]), scores, 1, 3).item() < 1e-6
    fixed = torch.cat([still, still])  # as if the answer hung on the tile: 6 x 8 cells, moved
    apart = 1 - 3 * 7 / (2 * 6 * 8 - 3 * 7 + 1) - 1 / (2 * 6 * 8 - 3 * 7 + 1)
    assert unsteadiness(fixed, scores, 1, 3).item() == pytest.approx(apart, abs=1e-4)
    other = torch.cat([scores[:1], scores[1:] - 0.1])
    assert unsteadiness(torch.cat([still, moved]), other, 1, 3).item() == pytest.approx(
        SCORE_WEIGHT * 0.01, abs=1e-4
    )


def test_moved_crops_are_learnt_in_the_first_round(batches):
    wide = Batches(batches.sampler, seed=3, images=2, prompts=4, model_size=512, margins=True)
    model = load_model("nano").network.requires_grad_()
    both = seen_twice(wide[0], 2, 1)
    asked = []
    decode = model.decode

    def spy(features, prompts, **how):
        asked.append(len(prompts.points))
        return decode(features, prompts, **how)

    model.decode = spy
    torch.manual_seed(0)
    loss, log = batch_loss(model, both, 2, shift=(2, 1))
    assert asked == [8, 4, 8, 4]  # two crops twice with two prompts a kind; then once
    assert {"box_apart", "click_apart"} < log.keys()
    loss.backward()
    assert all(p.grad is not None for p in model.image_encoder.parameters())


def test_the_exact_box_counts_from_pixel_centres():
    mask = np.zeros((20, 20), bool)
    mask[5:9, 3:13] = True
    boxes = {tuple(extent(mask, np.random.default_rng(seed)).tolist()) for seed in range(9)}
    assert (2.5, 4.5, 12.5, 8.5) in boxes


def test_the_loss_is_least_for_the_truth():
    truth = torch.zeros(1, 16, 16)
    truth[0, 4:9, 3:12] = 1
    sure = 20 * (2 * truth - 1)
    logits = torch.stack([sure, -sure, torch.zeros_like(sure)], dim=1)
    scores = torch.tensor([[1.0, 0.0, 0.0]])
    loss, best, iou = mask_loss(logits, scores, truth, torch.ones(1))
    assert torch.equal(best, sure)
    assert iou.tolist() == [1.0]
    worse, _, _ = mask_loss(logits[:, 1:], scores[:, 1:], truth, torch.ones(1))
    assert loss < 0.2 < worse


def test_masks_of_a_prompt_that_means_one_object_learn_it_alike():
    targets = torch.zeros(1, 16, 16)
    targets[:, 4:12, 4:12] = 1
    good = (targets * 2 - 1) * 3
    wrong = torch.full_like(good, -3)
    logits = torch.stack([good, wrong, wrong], dim=1).requires_grad_()
    scores, weights = torch.full((1, 3), 0.5), torch.ones(1)
    alone = torch.stack([wrong], dim=1).requires_grad_()
    mask_loss(alone, scores[:, :1], targets, weights, ambiguous=False)[0].backward()
    shares = {}
    for ambiguous in (True, False):
        logits.grad = None
        loss, best, iou = mask_loss(logits, scores, targets, weights, ambiguous=ambiguous)
        loss.backward()
        assert torch.equal(best[0], good[0])
        assert iou.item() == 1
        shares[ambiguous] = (logits.grad[0, 1].norm() / alone.grad[0, 0].norm()).item()
        torch.testing.assert_close(logits.grad[0, 1], logits.grad[0, 2])
    assert shares[False] == pytest.approx(1 / 3)
    assert shares[True] == pytest.approx(0.02 / 3)


def test_scores_learn_which_of_all_scales_masks_answers_a_click_best():
    targets = torch.zeros(4, 16, 16)  # two clicks at two scales, the finer one first
    targets[[0, 2], 2:14, 2:14] = 1
    targets[[1, 3], 5:11, 5:11] = 1
    right = (targets * 2 - 1) * 9
    off = right.roll(3, 2)
    logits = torch.stack([off, off, off], dim=1)
    logits[1, 2] = right[1]  # the first click is answered at the coarser scale
    logits[2, 0] = right[2]  # the other one at the finer
    scores = torch.full((4, 3), 0.7, requires_grad=True)
    loss, best, iou = choice_loss(logits, scores, targets, torch.ones(4), 2)
    assert iou.tolist() == [pytest.approx(0.6), 1, 1, pytest.approx(1 / 3)]
    assert torch.equal(best[1], right[1])
    loss.backward()
    up = scores.grad < 0
    assert up.nonzero().tolist() == [[1, 2], [2, 0]]
    told = torch.full((4, 3), 0.7)
    told[1, 2] = told[2, 0] = 1.0
    assert choice_loss(logits, told, targets, torch.ones(4), 2)[0] < loss - 0.5
    unseen = torch.tensor([1.0, 0.0, 1.0, 1.0])  # the first click's object is too small there
    scores.grad = None
    choice_loss(logits, scores, targets, unseen, 2)[0].backward()
    assert not scores.grad[1].any()
    assert scores.grad[2, 0] < 0 < scores.grad[3].min()


def test_a_mask_that_the_edge_cuts_is_not_chosen():
    targets = torch.zeros(2, 16, 16)
    targets[0, :, :8] = 1  # at the finer scale the object goes on beyond the crop
    targets[1, 4:8, 4:8] = 1
    logits = ((targets * 2 - 1) * 9)[:, None]
    logits[1] = logits[1].roll(1, 2)
    values = []
    for score in (0.2, 0.9):
        scores = torch.tensor([[score], [0.5]], requires_grad=True)
        loss, _, iou = choice_loss(logits, scores, targets, torch.ones(2), 2)
        assert iou[0] == 1
        values.append(loss.item() - SCORE_WEIGHT * (1 - score) ** 2 / 2)
    assert values[0] == pytest.approx(values[1])  # whatever its score, the other one answers


def test_the_next_click_is_in_the_largest_error():
    truth = torch.zeros(1, 32, 32)
    truth[0, 8:24, 8:24] = 1
    logits = 2 * truth - 1
    logits[0, 10:22, 10:22] = -1  # a hole
    logits[0, 0, 0] = 1  # a speck
    point, label = next_click(logits, truth)
    assert label.tolist() == [1]
    x, y = ((point[0] - 1.5) / 4).long().tolist()
    assert 10 <= x < 22
    assert 10 <= y < 22


def test_folding_is_convolution_then_batch_norm():
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5, eps=BATCH_NORM_EPS).eval()
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    nn.init.normal_(norm.weight)
    weights = {"c.weight": conv.weight.detach()}
    weights |= {f"n.{key}": value for key, value in norm.state_dict().items()}
    folded = nn.Conv2d(3, 5, 3)
    fold(folded, weights, "c", "n")
    image = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(folded(image), norm(conv(image)))


def test_imagenet_fills_every_layer_of_the_trunk():
    trunk = EfficientNetLite0()
    before = {key: value.clone() for key, value in trunk.state_dict().items()}
    load_imagenet(trunk)
    assert all(not torch.equal(value, before[key]) for key, value in trunk.state_dict().items())


def test_a_run_that_is_cut_goes_on_as_if_it_had_not_been(tmp_path, batches):
    plan = Plan(steps=4, thaw=2, images=4, prompts=4)
    whole = Run(plan)
    for step in range(4):
        log = whole.learn(batches[step])
    assert set(log) >= {"loss", "box0", "click0"}
    first = Run(plan)
    for step in range(2):
        first.learn(batches[step])
    first.save(tmp_path)
    second = Run(plan)
    second.resume(tmp_path)
    for step in range(second.step, 4):
        second.learn(batches[step])
    for key, value in whole.average.items():
        torch.testing.assert_close(second.average[key], value, atol=1e-6, rtol=1e-5)
    with pytest.raises(TrainingError, match=r"other steps, images, prompts .*name another output"):
        Run(Plan(steps=5, thaw=2)).resume(tmp_path)


def write_data(folder: Path) -> None:
    (folder / "fields").mkdir(parents=True)
    own = scene()
    Image.fromarray(own.pyramid[0]).save(folder / "fields/a.webp", lossless=True)
    Image.fromarray(own.labels.astype(np.uint16)).save(folder / "fields/a.instances.png")


def test_a_run_takes_the_minutes_it_is_given(tmp_path):
    write_data(tmp_path / "data")
    plan = Plan(steps=None, minutes=0.1, thaw=0, images=4, prompts=2, whole_trunk=True, steady=True)
    out = tmp_path / "out"
    train(plan, tmp_path / "data", out, start=MODELS["nano"], device="cpu")
    saved = torch.load(out / "checkpoint.pt", weights_only=True)
    assert 6 <= saved["seconds"] < 20
    assert saved["step"] >= 1
    learnt, before = load_model(out / "weights.safetensors").network, load_model("nano").network
    differing = {
        key for key, value in learnt.state_dict().items()
        if not torch.equal(value, before.state_dict()[key])
    }  # fmt: skip
    assert "image_encoder.trunk.stem.weight" in differing
    train(plan, tmp_path / "data", out, start=MODELS["nano"], device="cpu")
    assert torch.load(out / "checkpoint.pt", weights_only=True)["step"] == saved["step"]


def test_rates_go_down_with_the_share_of_the_time():
    run = Run(Plan(steps=None, minutes=1, thaw=0), MODELS["nano"])
    run.step, rates = 1_000, []
    for seconds in (0, 30, 60):
        run.seconds = seconds
        set_rates(run.optimizer, run.plan, run.step, run.share)
        rates.append(run.optimizer.param_groups[0]["lr"] / run.plan.rate)
    assert rates == pytest.approx([1, 0.505, 0.01])


def test_nano_is_trained_without_gdal():
    code = """
import sys
for name in ("rasterio", "geopandas", "shapely", "pyproj", "zarr"):
    sys.modules[name] = None  # importing it fails
import geosam.training.train
"""
    subprocess.run([sys.executable, "-c", code], check=True)
