"""Linear layers of cells, whatever way a processor takes."""

import pytest
import torch
from torch.nn import functional as F

from geosam.model import layers
from geosam.model.layers import CellLinear, PointConv, cell_linear


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(2, 8, 8), (1, 5, 7), (3, 16, 4), (16,)])
def test_a_cell_s_numbers_are_its_own_product(shape, bias):
    torch.manual_seed(0)
    x, weight = torch.randn(*shape, 6), torch.randn(4, 6)
    addend = torch.randn(4) if bias else None
    expected = (x[..., None, :] * weight).sum(-1) + (addend if bias else 0)
    found = cell_linear(x, weight, addend)
    assert found.shape == (*shape, 4)
    torch.testing.assert_close(found, expected)


def test_cells_that_lie_apart_are_taken_in_order():
    torch.manual_seed(0)
    layer = CellLinear(6, 4).requires_grad_(False)
    x = torch.randn(2, 10, 12, 6)[:, 1:9, :8]
    assert not x.is_contiguous()
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))


@pytest.mark.parametrize("convolves", [True, False])
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_point_s_channels_see_one_another_alone(monkeypatch, convolves, channels_last, dtype):
    monkeypatch.setattr(layers, "CONVOLVES", convolves)
    torch.manual_seed(0)
    layer = PointConv(6, 4).requires_grad_(False).to(dtype)
    x = torch.randn(2, 6, 8, 12, dtype=dtype)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    expected = F.conv2d(x.double(), layer.weight.double(), layer.bias.double())
    rough = dtype == torch.bfloat16
    torch.testing.assert_close(
        layer(x).double(), expected, atol=3e-2 if rough else 1e-5, rtol=1e-2 if rough else 1e-5
    )
