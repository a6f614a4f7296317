"""Training: data are what they should be, a run that is cut goes on as if it had not been."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import nn

from geosam.errors import TrainingError
from geosam.model import MODELS, load_model
from geosam.model.image_encoder import EfficientNetLite0
from geosam.protocol import MASK_LOGIT
from geosam.training.batches import FARTHEST, Batches, extent, objects, seen_twice
from geosam.training.composites import compose, draw, parcels
from geosam.training.crops import FILL, Crop, Sampler, cut, paste, recolour, warp
from geosam.training.imagenet import BATCH_NORM_EPS, fold, load_imagenet
from geosam.training.regions import regions
from geosam.training.scenes import make_scene, read_scenes
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


def scene(size=300):
    """Bright squares, each a label."""
    image = np.full((size, size, 3), 60, np.uint8)
    labels = np.zeros((size, size), np.int32)
    for number, (row, col) in enumerate([(20, 30), (150, 160), (200, 40)], start=1):
        image[row : row + 50, col : col + 70] = 160 + 10 * number
        labels[row : row + 50, col : col + 70] = number
    return make_scene("buildings", image, labels)


@pytest.fixture
def batches():
    textures = [np.random.default_rng(n).integers(0, 255, (90, 90, 3), np.uint8) for n in range(3)]
    return Batches(Sampler({"buildings": [scene()]}, textures), seed=3, images=4, prompts=4,
                   model_size=512)  # fmt: skip


def test_scenes_are_read_with_their_instances(tmp_path: Path):
    (tmp_path / "fields").mkdir()
    own = scene()
    Image.fromarray(own.pyramid[0]).save(tmp_path / "fields/a.webp", lossless=True)
    labels = Image.fromarray(own.labels.astype(np.uint16))
    labels.save(tmp_path / "fields/a.instances.png")
    (read,) = read_scenes(tmp_path)
    assert read.kind == "fields"
    assert (read.pyramid[0] == own.pyramid[0]).all()
    assert read.boxes.tolist() == [[30, 20, 100, 70], [160, 150, 230, 200], [40, 200, 110, 250]]
    assert [len(level) for level in read.pyramid] == [300, 150, 75]


def test_a_crop_s_labels_lie_where_its_objects_lie():
    rng = np.random.default_rng(0)
    for _ in range(50):
        crop = cut(scene(), 256, rng)
        bright = crop.image[..., 0] > 140
        inside = (crop.image != FILL).any(2)
        labelled = crop.labels > 0
        both = (bright & labelled & inside).sum()
        assert both / max(1, ((bright | labelled) & inside).sum()) > 0.8


def test_recolouring_leaves_places_without_data():
    image = np.full((8, 8, 3), 90, np.uint8)
    image[:4] = FILL
    for seed in range(20):
        new = recolour(image, np.random.default_rng(seed))
        assert (new[:4] == FILL).all()


def test_composites_are_labelled(batches):
    for seed in range(10):
        image, labels = compose(batches.sampler.textures, 128, np.random.default_rng(seed))
        assert image.shape == (128, 128, 3)
        assert labels.max() >= 1


def test_drawings_are_flat_and_labelled():
    for seed in range(10):
        image, labels = draw(128, np.random.default_rng(seed))
        assert image.dtype == np.uint8
        sizes = np.bincount(labels.ravel())
        for number in np.flatnonzero(sizes[1:] > 200) + 1:
            inner = ndimage.binary_erosion(labels == number, iterations=4)
            colours = np.unique(image[inner], axis=0)
            assert len(colours) <= 1 or np.ptp(colours, axis=0).max() <= 1


def test_objects_are_pasted_whole_and_elsewhere():
    source, onto = np.zeros((64, 64), np.int32), np.zeros((64, 64), np.int32)
    source[10:20, 10:30] = 4
    source[50:, 40:50] = 5  # goes on beyond the crop
    onto[:8] = 1
    red, black = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64, 3), np.uint8)
    red[source > 0] = (255, 0, 0)
    for seed in range(5):
        new = paste(Crop(red, source), Crop(black, onto), np.random.default_rng(seed))
        assert np.unique(new.labels).tolist() in ([0, 1, 2], [0, 2])
        assert (new.labels == 2).sum() == 200
        inner = ndimage.binary_erosion(new.labels == 2, iterations=3)
        assert (new.image[inner, 0] >= 254).all()
        assert (new.image[..., 0] > 0).sum() < 500


def test_regions_are_the_plain_objects_of_an_image():
    own = scene(256)
    noise = np.random.default_rng(0).integers(0, 6, own.pyramid[0].shape, np.uint8)
    for seed in range(3):
        found = regions(own.pyramid[0] + noise, np.random.default_rng(seed))
        for number in own.ids:
            truth = own.labels == number
            chosen = np.bincount(found[truth]).argmax()
            mask = found == chosen
            assert chosen > 0
            assert (mask & truth).sum() / (mask | truth).sum() > 0.8
        assert found[0, 0] == 0  # the ground is no object


def test_a_rough_outline_is_the_mask_displaced():
    masks = torch.full((2, 32, 32), -7.0)
    masks[:, 10:20, 8:22] = 5
    torch.manual_seed(3)
    drawn = rough(masks)
    assert set(drawn.unique().tolist()) == {-MASK_LOGIT, MASK_LOGIT}
    assert (drawn > 0).sum() == (masks > 0).sum()
    both = ((drawn > 0) & (masks > 0)).sum() / ((drawn > 0) | (masks > 0)).sum()
    assert 0.5 < both <= 1


def test_a_batch_is_a_function_of_its_step(batches):
    for step in (0, 3):
        one, two = batches[step], batches[step]
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(batches[0].images, batches[1].images)
    assert batches[0].images.shape == (4, 3, 256, 256)
    assert batches[3].images.shape == (1, 3, 512, 512)


def test_prompts_fit_their_targets(batches):
    batch = batches[0]
    for image in range(4):
        for k in range(4):
            if not batch.weights[image, k]:
                continue
            target = batch.targets[image, k]
            x, y = (batch.clicks[image, k] / 4).long()
            assert target[y, x] > 0
            rows, cols = np.nonzero(target.numpy())
            xmin, ymin, xmax, ymax = batch.boxes[image, k].tolist()
            side = max(xmax - xmin, ymax - ymin)
            assert abs(cols.min() * 4 - xmin) <= 5 + 0.15 * side
            assert abs((rows.max() + 1) * 4 - ymax) <= 5 + 0.15 * side


def test_a_target_is_the_share_of_each_cell():
    labels = np.random.default_rng(5).integers(0, 3, (32, 32)).astype(np.int32)
    crop = Crop(np.zeros((32, 32, 3), np.uint8), labels)
    targets, *_, weights = objects(crop, 8, np.random.default_rng(0))
    shares = [(labels == n).reshape(8, 4, 8, 4).mean((1, 3)) for n in (1, 2)]
    assert (weights == 1).all()
    for target in targets:
        assert any((target == share).all() for share in shares)


def test_a_crop_is_the_same_whether_cut_from_all_of_a_scene_or_a_part():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (400, 500, 3), np.uint8)
    for turn in (0.3, 2.0):
        linear = 0.7 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        offset = np.array([32.0, 32]) - linear @ (250, 200)
        matrix = np.hstack([linear, offset[:, None]])
        matrix[:, 2] += matrix[:, :2].sum(1) * 0.5 - 0.5
        whole = cv2.warpAffine(image, matrix, (64, 64), borderValue=FILL).astype(int)
        part = warp(image, linear, offset, 1, 64, nearest=False).astype(int)
        assert np.abs(part - whole).max() <= 6  # cv2 rounds places to 1/32 px
    beyond = warp(image, np.eye(2), np.array([9_000.0, 0]), 1, 64, nearest=False)
    assert (beyond == FILL).all()


def test_parcels_do_not_overlap():
    for seed in range(6):
        masks = parcels(96, np.random.default_rng(seed))
        assert np.sum(masks, axis=0).max() == 1
        assert len(masks) > 1


def test_a_crop_moved_shows_the_same_ground_and_prompts(batches):
    wide = Batches(batches.sampler, seed=3, images=4, prompts=4, model_size=512, margins=True)
    for step in (0, 3):
        batch = wide[step]
        size = 512 if step == 3 else 256
        count = len(batch.images)
        assert batch.images.shape[-1] == size + 4 * FARTHEST
        both = seen_twice(batch, 1, 3)
        assert both.images.shape == (2 * count, 3, size, size)
        assert both.targets.shape == (2 * count, 4, size // 4, size // 4)
        still, moved = both.images.chunk(2)
        assert torch.equal(still[..., 12:, 4:], moved[..., :-12, :-4])
        still, moved = both.targets.chunk(2)
        assert torch.equal(still[..., 3:, 1:], moved[..., :-3, :-1])
        still, moved = both.clicks.chunk(2)
        assert torch.equal(still - moved, torch.tensor([4.0, 12]).expand_as(still))
        drawn = both.weights > 0
        assert drawn.any()
        clicks = both.clicks[drawn]
        assert ((clicks >= 0) & (clicks < size)).all()
        for target, (x, y) in zip(both.targets[drawn], (clicks / 4).long(), strict=True):
            assert target[y, x] > 0
        boxes = both.boxes[drawn]
        assert ((boxes >= -0.5) & (boxes <= size - 0.5)).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()


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
