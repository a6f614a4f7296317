"""Training: data are what they should be, a run that is cut goes on as if it had not been."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import nn

from geosam.errors import TrainingError
from geosam.model.image_encoder import EfficientNetLite0
from geosam.protocol import MASK_LOGIT
from geosam.training.batches import Batches, extent
from geosam.training.composites import compose, draw
from geosam.training.crops import FILL, Crop, Sampler, cut, paste, recolour
from geosam.training.imagenet import BATCH_NORM_EPS, fold, load_imagenet
from geosam.training.regions import regions
from geosam.training.scenes import make_scene, read_scenes
from geosam.training.steps import mask_loss, next_click, rough
from geosam.training.train import Plan, Run


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
