"""Fewer or more pixels from pixels, where some are not valid.

Both ways work pixel by pixel in a fixed order, so a result never depends, to the last bit, on
what else was asked for in the same call.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.number]
Mask = npt.NDArray[np.bool_]
Plane = npt.NDArray[np.float64]


FEW = 8  # px along a block's side that are added up faster by strides than one after the other

Lead = tuple[int, int]
"""Rows and columns that the first block of a chip lacks, because it starts before the chip does."""


def block_mean(data: Pixels, valid: Mask, factor: int, lead: Lead = (0, 0)) -> tuple[Pixels, Mask]:
    """Average the valid pixels of each block of factor x factor pixels.

    Args:
        data: (C, H, W). Integers stay integers: their means are rounded.
        valid: (H, W). Pixels that are not valid take no part.
        factor: Block side in pixels. The last blocks are partial where they reach beyond H or W.
        lead: Of the first blocks.

    Returns:
        Means (C, ceil((H + lead) / factor), ceil((W + lead) / factor)), and where at least half of
        a block's pixels are valid. The mean of a block without a valid pixel is 0.
    """
    full = _block_sizes(valid.shape, factor, lead)
    seen = valid.all()
    count = full if seen else _block_sum(valid, factor, lead)
    means = np.empty((len(data), *count.shape), data.dtype)
    for plane, mean in zip(data, means, strict=True):
        total = _block_sum(
            plane if seen else np.where(valid, plane, plane.dtype.type(0)), factor, lead
        )
        _store(total / np.maximum(count, 1), mean)
    return means, 2 * count >= full


def block_all(valid: Mask, factor: int, lead: Lead = (0, 0)) -> Mask:
    """Where every pixel of a block of factor x factor is valid; (H, W) as for `block_mean`."""
    full = _block_sizes(valid.shape, factor, lead)
    whole: Mask = np.ones(full.shape, bool)
    return whole if valid.all() else _block_sum(valid, factor, lead) == full


def enlarge(data: Pixels, valid: Mask, factor: int) -> tuple[Pixels, Mask]:
    """Interpolate linearly between pixel centres, `factor` new pixels per pixel and axis.

    Args:
        data: (C, H + 2, W + 2), with a margin of one pixel on every side. Integers stay integers.
        valid: (H + 2, W + 2). Pixels that are not valid take no part.
        factor: New pixels per pixel along each axis.

    Returns:
        Pixels (C, H * factor, W * factor), and their validity: that of the pixel they lie in.
    """
    weight = _interpolate(valid.astype(np.float64), factor)
    inner = valid[1:-1, 1:-1].repeat(factor, axis=0).repeat(factor, axis=1)
    pixels = np.empty((len(data), *weight.shape), data.dtype)
    for plane, pixel in zip(data, pixels, strict=True):
        total = _interpolate(np.where(valid, plane, 0).astype(np.float64), factor)
        _store(np.divide(total, weight, out=total, where=weight > 0), pixel)
    return pixels, inner


def _store(values: Plane, out: npt.NDArray[np.number]) -> None:
    out[...] = np.rint(values) if np.issubdtype(out.dtype, np.integer) else values


def _block_sizes(shape: tuple[int, ...], factor: int, lead: Lead) -> npt.NDArray[np.int64]:
    """How many pixels of a chip (H, W) each block holds."""
    firsts = (np.arange(-lack, length, factor) for length, lack in zip(shape, lead, strict=True))
    rows, cols = (
        np.diff(first.clip(0), append=length) for first, length in zip(firsts, shape, strict=True)
    )
    return np.outer(rows, cols)


def _block_sum(plane: npt.NDArray[Any], factor: int, lead: Lead) -> npt.NDArray[Any]:
    """Sums of the blocks of a plane (H, W); exact and fast for integers of up to 32 bits."""
    (height, width), (top, left) = np.add(plane.shape, lead), lead
    below, right = -height % factor, -width % factor
    if top or left or below or right:
        plane = np.pad(plane, ((top, below), (left, right)))
    whole = plane.dtype.kind in "bui" and plane.dtype.itemsize <= 4
    if not whole:
        plane = plane.astype(np.float64, copy=False)
        rows = _sum([plane[step::factor] for step in range(factor)])
        return _sum([rows[:, step::factor] for step in range(factor)])
    high, wide = plane.shape[0] // factor, plane.shape[1] // factor
    rows = np.add.reduce(plane.reshape(high, factor, -1), axis=1, dtype=np.int64)  # (h, W)
    if factor > FEW:
        rows = rows.reshape(high, wide, factor)
        blocks: npt.NDArray[np.int64] = np.add.reduce(rows, axis=2)  # (h, w)
        return blocks
    return _sum([rows[:, step::factor] for step in range(factor)])


def _sum(parts: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Sum arrays one after the other, in this order."""
    total = parts[0].copy()
    for part in parts[1:]:
        total += part
    return total


def _interpolate(plane: Plane, factor: int) -> Plane:
    return _interpolate_rows(_interpolate_rows(plane, factor).T, factor).T


def _interpolate_rows(plane: Plane, factor: int) -> Plane:
    """New rows between the centres of the old ones; the first and last old row are margin."""
    before, here, after = plane[:-2], plane[1:-1], plane[2:]
    rows = np.empty((len(here) * factor, plane.shape[1]))
    for phase in range(factor):
        shift = (phase + 0.5) / factor - 0.5  # of the new centre from the old one, in old rows
        neighbour = before if shift < 0 else after
        rows[phase::factor] = (1 - abs(shift)) * here + abs(shift) * neighbour
    return rows
