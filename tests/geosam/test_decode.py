"""How clicks are asked: at which scales, and of several the first alone before the others."""

import numpy as np
import pytest

from geosam.prompts import PromptSet
from geosam.verbs import segment
from tests.fakes import FloodModel, images_of, write_raster


class ChoosyModel(FloodModel):
    """Finds its answers good only where a square is so many px wide; keeps what it is asked."""

    def __init__(self, best):
        super().__init__()
        self.best, self.asked = list(best), []

    def decode(self, features, prompts, *, multimask, min_score=None):
        self.asked += [(prompt, multimask) for prompt in prompts]
        logits, scores = super().decode(features, prompts, multimask=multimask)
        widths = [  # of the square, px of the tile
            int((image[0] == 200).any(0).sum()) for image in images_of(features, prompts)
        ]
        return logits, scores * np.where(np.isin(widths, self.best), 1.0, 0.5)[:, None]


@pytest.mark.parametrize(("scale", "widths"), [(0.5, range(46, 57)), (1, [28]), (2, [14])])
def test_further_clicks_correct_the_first_one_s_mask_at_its_scale(tmp_path, scale, widths):
    image = np.full((256, 256), 20, np.uint8)
    image[120:148, 120:148] = 200
    path = write_raster(tmp_path / "a.tif", image)
    places = [[516_220.5, 5_160_831.5], [516_230.5, 5_160_826.5]]
    model = ChoosyModel(widths)
    (lone,) = segment(model, path, PromptSet.of(points=places[:1])).itertuples()
    model.asked.clear()
    (both,) = segment(model, path, PromptSet.of(points=[places])).itertuples()
    assert both.scale == lone.scale == scale
    assert both.geometry.equals(lone.geometry)
    guides = [prompt for prompt, multimask in model.asked if multimask]
    corrections = [p for p, multimask in model.asked if len(p.points) and not multimask]
    assert len(guides) == len(corrections) == 3  # at each scale
    for guide, correction in zip(guides, corrections, strict=True):
        assert guide.mask is None and len(guide.points) == 1
        assert len(correction.points) == 2 and (correction.mask > 0).any()
        x, y = guide.points[0]
        assert correction.mask[round(float(y)), round(float(x))] > 0


@pytest.mark.parametrize(
    ("side", "widths", "scale", "times"),
    [(20, range(70, 81), 0.25, 4), (20, [20], 1, 4), (28, range(100, 113), 1, 3)],
)
def test_only_a_small_object_is_looked_at_from_nearer_still(tmp_path, side, widths, scale, times):
    image = np.full((256, 256), 20, np.uint8)
    image[120 : 120 + side, 120 : 120 + side] = 200
    path = write_raster(tmp_path / "a.tif", image)
    model = ChoosyModel(widths)
    (found,) = segment(model, path, PromptSet.of(points=[[516_224.5, 5_160_832.5]])).itertuples()
    assert found.scale == scale
    assert found.geometry.area == pytest.approx(side**2, rel=0.15)
    assert len(model.asked) == times


def test_a_click_s_scales_are_decoded_in_one_call(tmp_path):
    """One prompt at a time is too little work for a CPU; hovering asks for nothing else."""
    image = np.full((256, 256), 20, np.uint8)
    image[100:160, 100:160] = 200
    path = write_raster(tmp_path / "a.tif", image)
    calls = []

    class Counting(FloodModel):
        def decode(self, features, prompts, **options):
            calls.append(len(prompts))
            return super().decode(features, prompts, **options)

    click = PromptSet.of(points=[[516_230.5, 5_160_830.5]])
    assert segment(Counting(), path, click)["status"].tolist() == ["ok"]
    assert calls[0] == 3
