import numpy as np
import pytest

from tests.fakes import FloodModel, discs, write_raster
from tests.serve.client import served


@pytest.fixture
def raster(tmp_path):
    return str(
        write_raster(
            tmp_path / "ortho.tif",
            np.stack([discs((400, 420), (103, 112, 15), (300, 300, 40))] * 3),
        )
    )


@pytest.fixture
def model():
    return FloodModel()


@pytest.fixture
def client(model):
    with served(model) as made:
        yield made
