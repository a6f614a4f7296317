"""Layer normalisation as a kernel; torch's own is slow for many short rows."""

import torch
import triton
import triton.language as tl
from torch import Tensor

NUMBERS = 4096  # of a block of rows


def normalised(x: Tensor, weight: Tensor, bias: Tensor, eps: float, *, gelu: bool) -> Tensor:
    """Rows (..., C) less their mean, over their spread, times weight, plus bias; then GELU.

    Args:
        x: (..., C).
        weight: (C,).
        bias: (C,).
        eps: added to the variance.
        gelu: whether the exact GELU follows.
    """
    x = x.contiguous()
    out = torch.empty_like(x)
    channels = x.shape[-1]
    count, wide = x.numel() // channels, triton.next_power_of_2(channels)
    rows = max(NUMBERS // wide, 1)
    _normalise[(triton.cdiv(count, rows),)](
        x, weight, bias, out, count, eps, CHANNELS=channels, WIDE=wide, ROWS=rows, GELU=gelu
    )
    return out


@triton.jit
def _normalise(
    x, weight, bias, out, count, eps,
    CHANNELS: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, GELU: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, WIDE)
    real = (channel < CHANNELS)[None]
    mask = (row < count)[:, None] & real
    at = row[:, None] * CHANNELS + channel[None]
    values = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
    values = tl.where(real, values - (tl.sum(values, 1) / CHANNELS)[:, None], 0.0)
    spread = tl.sqrt(tl.sum(values * values, 1) / CHANNELS + eps)
    factor = tl.load(weight + channel, mask=channel < CHANNELS, other=0.0).to(tl.float32)
    addend = tl.load(bias + channel, mask=channel < CHANNELS, other=0.0).to(tl.float32)
    values = values / spread[:, None] * factor[None] + addend[None]
    if GELU:
        values = values.to(x.dtype.element_ty).to(tl.float32)  # as torch rounds between the two
        values = 0.5 * values * (1 + tl.erf(values * 0.7071067811865476))
    tl.store(out + at, values.to(out.dtype.element_ty), mask=mask)
