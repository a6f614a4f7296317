"""Rectangles of whole pixels."""

import math
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A half-open rectangle of whole pixels: columns [col, right), rows [row, bottom).

    Attributes:
        col: First column. May be negative: a window need not lie inside any raster.
        row: First row. May be negative.
        width: Number of columns, at least 1.
        height: Number of rows, at least 1.

    Raises:
        ValueError: If width or height is not positive.
    """

    col: int
    row: int
    width: int
    height: int

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(
                f"Window size: {self.width} x {self.height} (expected at least 1 x 1). "
                "Leave empty windows out."
            )

    @classmethod
    def spanning(cls, col: int, row: int, right: int, bottom: int) -> Self:
        """The window of columns [col, right) and rows [row, bottom)."""
        return cls(col, row, right - col, bottom - row)

    @property
    def right(self) -> int:
        """The column just past the last one."""
        return self.col + self.width

    @property
    def bottom(self) -> int:
        """The row just past the last one."""
        return self.row + self.height

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.height, self.width

    def shape_at(self, scale: float) -> tuple[int, int]:
        """(height, width) in pixels `scale` times as large; the last ones may stick out."""
        return _round_up(self.height / scale), _round_up(self.width / scale)

    def contains(self, other: "Window") -> bool:
        """Whether every pixel of `other` is a pixel of this window."""
        return (
            self.col <= other.col
            and self.row <= other.row
            and other.right <= self.right
            and other.bottom <= self.bottom
        )

    def __and__(self, other: "Window") -> "Window | None":
        """The pixels common to both windows; None where they share none."""
        col, row = max(self.col, other.col), max(self.row, other.row)
        right, bottom = min(self.right, other.right), min(self.bottom, other.bottom)
        return Window.spanning(col, row, right, bottom) if col < right and row < bottom else None

    def slices(self, origin: "Window | None" = None) -> tuple[slice, slice]:
        """(rows, columns) that cut this window out of an array.

        Args:
            origin: The window that the array covers, which must contain this one. None: the
                array starts at pixel (0, 0).

        Raises:
            ValueError: If the window sticks out of `origin` or starts before pixel (0, 0).
        """
        if origin is not None and not origin.contains(self):
            raise ValueError(f"{self}: outside its origin (expected inside {origin}).")
        col = self.col - (origin.col if origin else 0)
        row = self.row - (origin.row if origin else 0)
        if col < 0 or row < 0:
            raise ValueError(f"{self}: starts before (0, 0) (expected inside the array).")
        return slice(row, row + self.height), slice(col, col + self.width)


def _round_up(number: float) -> int:
    """The next whole number, forgiving the last-digit error of a division."""
    return math.ceil(number - 1e-9)
