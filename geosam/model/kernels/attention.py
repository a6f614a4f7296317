"""Attention of an image encoder: windows, relative positions, softmax and values in one kernel.

Sources: Dao et al. 2022 and 2023 (FlashAttention), the order of the loops; Li et al. 2022 (MViTv2),
sec. 4.1, the relative positions.

What `geosam.model.vit.masked` does in steps, each a pass over memory, is done where the scores are
made. Cells are read from where the linear layer has left them, neither windows nor heads are copied
out, and whatever a window has outside the image is one and the same cell, the layer's bias.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor, nn
from torch.nn import functional as F

QUERIES, KEYS = 64, 64  # cells of a block
LOG2E = tl.constexpr(1.4426950408889634)


def attend(x: Tensor, qkv: nn.Linear, rel_pos_h: Tensor, rel_pos_w: Tensor, window: int) -> Tensor:
    """Attention within windows.

    Args:
        x: cells (B, H, W, C).
        qkv: C to 3 * heads * c numbers: queries, keys and values.
        rel_pos_h: (2 * window - 1, c), the code of each distance of two rows.
        rel_pos_w: the same of columns.
        window: side of a window, cells; the last ones may jut out of the image.

    Returns:
        (B, H, W, heads * c).
    """
    batch, height, width, inputs = x.shape
    channels, numbers = rel_pos_h.shape[1], len(qkv.weight)
    heads, cells = numbers // (3 * channels), batch * height * width
    made = x.new_empty(cells + 1, numbers)
    torch.addmm(qkv.bias, x.view(cells, inputs), qkv.weight.mT, out=made[:cells])
    made[cells] = qkv.bias
    table = torch.cat([rel_pos_h, rel_pos_w])  # (4 * window - 2, c)
    table = F.pad(table, (0, 0, 0, -len(table) % 8))  # rows of 16 bytes
    queries = (
        made[:cells].view(cells, 3, heads, channels)[:, 0].transpose(0, 1)
    )  # (heads, cells, c)
    places = torch.bmm(queries, table.mT.expand(heads, -1, -1))  # (heads, cells, 4 * window)
    out = x.new_empty(batch, height, width, heads * channels)
    rows, cols = triton.cdiv(height, window), triton.cdiv(width, window)
    wide = max(triton.next_power_of_2(window), 16)
    main = 1 << (channels.bit_length() - 1)  # what is beyond a power of 2 is a product of its own
    grid = (triton.cdiv(window**2, QUERIES), batch * rows * cols * heads)
    _attend[grid](
        made, places, out, height, width, cells, channels**-0.5,
        SIDE=window, WIDE=wide, ROWS=max(KEYS // wide, 1), HEADS=heads, MAIN=main,
        REST=channels - main, PLACES=len(table), WHOLE=height % window == width % window == 0,
        QUERIES=QUERIES, PRECISION="ieee" if x.dtype == torch.float32 else "tf32",
        num_warps=4, num_stages=3,
    )  # fmt: skip
    return out


@triton.jit
def _attend(
    made, places, out, height, width, cells, scale,
    SIDE: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, HEADS: tl.constexpr,
    MAIN: tl.constexpr, REST: tl.constexpr, PLACES: tl.constexpr, WHOLE: tl.constexpr,
    QUERIES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A block of queries of one window and head; keys come in blocks of whole rows."""
    CHANNELS: tl.constexpr = MAIN + REST
    NUMBERS: tl.constexpr = 3 * HEADS * CHANNELS
    head = tl.program_id(1) % HEADS
    number = tl.program_id(1) // HEADS
    cols, rows = tl.cdiv(width, SIDE), tl.cdiv(height, SIDE)
    top, left = number // cols % rows * SIDE, number % cols * SIDE
    first = (number // (rows * cols) * height + top).to(tl.int64) * width + left

    q = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    q_row, q_col = q // SIDE, q % SIDE
    asked = (q < SIDE * SIDE) & (top + q_row < height) & (left + q_col < width)
    if tl.max(asked.to(tl.int32), 0) == 0:
        return
    q_cell = tl.where(asked, first + q_row * width + q_col, cells)
    main, rest = tl.arange(0, MAIN), MAIN + tl.arange(0, REST if REST > 0 else 1)
    q_from = made + head * CHANNELS + q_cell[:, None] * NUMBERS
    q_main = tl.load(q_from + main[None])
    if REST > 0:
        q_rest = tl.load(q_from + rest[None])

    key = tl.arange(0, ROWS * WIDE)
    key_row, key_col = key // WIDE, key % WIDE
    place = places + (head.to(tl.int64) * cells + q_cell)[:, None] * PLACES + SIDE - 1
    line = tl.arange(0, WIDE)
    mask = asked[:, None] & (line < SIDE)[None]
    by_col = tl.load(place + 2 * SIDE - 1 + q_col[:, None] - line[None], mask=mask, other=0.0)
    if ROWS > 1:  # a product with ones and zeros is the quickest way to repeat numbers
        by_row = tl.load(place + q_row[:, None] - line[None], mask=mask, other=0.0)
        same = (line[:, None] == key_col[None]).to(by_col.dtype)
        by_col = tl.dot(by_col, same, input_precision=PRECISION)
    by_col = by_col.to(tl.float32)

    most = tl.full([QUERIES], -float("inf"), tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    seen = tl.zeros([QUERIES, MAIN], tl.float32)
    if REST > 0:
        seen_rest = tl.zeros([QUERIES, REST], tl.float32)
    keys = made + HEADS * CHANNELS + head * CHANNELS
    values = made + 2 * HEADS * CHANNELS + head * CHANNELS
    for start in range(0, SIDE, ROWS):
        row = start + key_row
        cell = first + row * width + key_col
        if not WHOLE:
            cell = tl.where((top + row < height) & (left + key_col < width), cell, cells)
        if WIDE > SIDE or SIDE % ROWS > 0:
            there = (row < SIDE) & (key_col < SIDE)
            cell = tl.where(there, cell, cells)
        k = tl.load(keys + main[:, None] + cell[None] * NUMBERS)
        scores = tl.dot(q_main, k, input_precision=PRECISION)
        if REST > 0:
            k = tl.load(keys + rest[:, None] + cell[None] * NUMBERS)
            scores = tl.dot(q_rest, k, scores, input_precision=PRECISION)
        scores = scores * scale + by_col
        if ROWS > 1:
            same = (line[:, None] == row[None]).to(by_row.dtype)
            scores = tl.dot(by_row, same, scores, input_precision=PRECISION)
        else:
            own = tl.load(place + (q_row - start)[:, None], mask=asked[:, None], other=0.0)
            scores += own.to(tl.float32)
        if WIDE > SIDE or SIDE % ROWS > 0:
            scores = tl.where(there[None], scores, -float("inf"))
        scores *= LOG2E
        new = tl.maximum(most, tl.max(scores, 1))
        shrink = tl.exp2(most - new)
        weights = tl.exp2(scores - new[:, None])
        total = total * shrink + tl.sum(weights, 1)
        weights = weights.to(k.dtype)
        v = tl.load(values + main[None] + cell[:, None] * NUMBERS)
        seen = tl.dot(weights, v, seen * shrink[:, None], input_precision=PRECISION)
        if REST > 0:
            v = tl.load(values + rest[None] + cell[:, None] * NUMBERS)
            seen_rest = tl.dot(weights, v, seen_rest * shrink[:, None], input_precision=PRECISION)
        most = new
    out_at = out + q_cell[:, None] * (HEADS * CHANNELS) + head * CHANNELS
    tl.store(out_at + main[None], (seen / total[:, None]).to(out.dtype.element_ty), asked[:, None])
    if REST > 0:
        found = (seen_rest / total[:, None]).to(out.dtype.element_ty)
        tl.store(out_at + rest[None], found, asked[:, None])
