import numpy as np
import pytest

from geosam.training.batches import Batches
from geosam.training.crops import Sampler
from tests.training.squares import scene


@pytest.fixture
def batches():
    textures = [np.random.default_rng(n).integers(0, 255, (90, 90, 3), np.uint8) for n in range(3)]
    return Batches(Sampler({"buildings": [scene()]}, textures), seed=3, images=4, prompts=4,
                   model_size=512)  # fmt: skip
