"""What nano is trained on: scenes, crops of them, drawings and prompts."""

from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from geosam.training.batches import FARTHEST, Batches, objects, seen_twice
from geosam.training.composites import compose, draw, parcels
from geosam.training.crops import FILL, Crop, cut, paste, recolour, warp
from geosam.training.regions import regions
from geosam.training.scenes import read_scenes
from tests.training.squares import scene


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
