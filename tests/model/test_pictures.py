"""Pictures of odd sizes become what the references make of them, to one grey level."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from geosam.model import sam1_weights, sam2_weights
from geosam.model.pictures import fit, squash
from geosam.model.sam1 import MEAN, STD
from geosam.model.sam1_runtime import Sam1Model
from geosam.model.sam1_weights import build_sam1
from geosam.model.sam2_runtime import Sam2Model
from geosam.model.sam2_weights import build_sam2
from geosam.protocol import FILL
from tests.references import Meta
from tests.references_sam2 import Meta2
from tests.seeded import TINY, TINY_2, official, official_2

SHAPES = [(1100, 1500), (903, 701), (1025, 333), (1024, 1024), (200, 77), (64, 64)]


def picture(shape, seed=0):
    """(H, W, 3) uint8: smooth, with edges and noise."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.integers(0, 256, (1, 3, 9, 7))).float()
    smooth = F.interpolate(coarse, shape, mode="bilinear")[0].permute(1, 2, 0).numpy()
    noisy = smooth + rng.normal(0, 20, (*shape, 3))
    noisy[shape[0] // 3 :, : shape[1] // 4] = 250
    return noisy.clip(0, 255).astype(np.uint8)


def levels(normalised):
    """Grey levels of what a processor normalised, (3, S, S)."""
    return normalised * np.array(STD)[:, None, None] + np.array(MEAN)[:, None, None]


def antialiased(image, size):
    """Grey levels (3, S, S) as torchvision's Resize gives them of a tensor, not rounded."""
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    return F.interpolate(tensor, (size, size), mode="bilinear", antialias=True)[0].numpy()


def hugging_face(image, size):
    module = pytest.importorskip("transformers.models.sam.image_processing_pil_sam")
    sides = {"height": size, "width": size}
    processor = module.SamImageProcessorPil(size={"longest_edge": size}, pad_size=sides)
    return processor(image, return_tensors="np").pixel_values[0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1024, 256])
def test_fit_is_the_processor_of_transformers(shape, size):
    image = picture(shape)
    ours, theirs = fit(image, size), hugging_face(image, size)
    assert ours.shape == (3, size, size)
    beyond = (ours == np.array(FILL)[:, None, None]).all(0)
    height, width = (int(side * size / max(shape) + 0.5) for side in shape)
    assert beyond[height:].all() and beyond[:, width:].all()
    assert (theirs[:, height:] == 0).all() and (theirs[:, :, width:] == 0).all()
    inside = np.s_[:, :height, :width]
    assert np.abs(ours[inside] - levels(theirs)[inside]).max() < 1.001


@pytest.mark.parametrize("shape", SHAPES)
def test_fit_is_meta_s(shape):
    pytest.importorskip("torchvision")
    transforms = pytest.importorskip("segment_anything.utils.transforms")
    theirs = transforms.ResizeLongestSide(1024).apply_image(picture(shape))
    ours = fit(picture(shape), 1024)[:, : len(theirs), : theirs.shape[1]]
    assert np.array_equal(ours, theirs.transpose(2, 0, 1))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1024, 256])
def test_squash_is_an_antialiased_resizing(shape, size):
    ours, theirs = squash(picture(shape), size), antialiased(picture(shape), size)
    assert ours.shape == (3, size, size)
    assert np.abs(ours - theirs).max() < 1.001


@pytest.mark.parametrize("shape", SHAPES)
def test_squash_is_meta_s(shape):
    pytest.importorskip("torchvision")
    transforms = pytest.importorskip("sam2.utils.transforms")
    theirs = transforms.SAM2Transforms(1024, 0.0)(picture(shape)).numpy()
    assert np.abs(squash(picture(shape), 1024) - levels(theirs)).max() < 1.001


def test_a_picture_of_the_size_stays_as_it_is():
    image = picture((256, 256))
    for resize in (fit, squash):
        assert np.array_equal(resize(image, 256), image.transpose(2, 0, 1))


def test_a_line_keeps_a_pixel():
    assert (fit(picture((3000, 2)), 256)[:, :, 1:] == np.array(FILL)[:, None, None]).all()


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_features_of_odd_pictures_are_meta_s(shape, monkeypatch):
    monkeypatch.setattr(sam1_weights, "CONFIGS", {"tiny": TINY})
    model = Sam1Model(build_sam1(official(), Path("tiny.pth")), "tiny")
    image = picture(shape)
    with torch.inference_mode():
        pixels = torch.from_numpy(hugging_face(image, 256))[None]
        theirs = Meta().network.image_encoder(pixels).numpy()
    check(model.encode(fit(image, 256)[None]), theirs)


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_features_of_odd_pictures_are_those_of_sam_2(shape, monkeypatch):
    monkeypatch.setattr(sam2_weights, "CONFIGS_2", {"tiny": TINY_2})
    model = Sam2Model(build_sam2(official_2(), Path("tiny.pt")), "tiny")
    image = picture(shape)
    theirs = Meta2().encode(antialiased(image, 256)[None])[0]
    check(model.encode(squash(image, 256)[None])[:, : TINY_2.width], theirs)


def check(ours, theirs):
    """Rounded grey levels and half precision are all that differs."""
    error = np.sqrt(np.mean((ours - theirs) ** 2))
    assert error < 0.02 * theirs.std()
