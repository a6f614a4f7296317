"""One decoded object as it comes from the model: logits on a grid that lies on the ground."""

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from geosam.errors import MaskError
from tiles.frame import Frame

Status: TypeAlias = Literal["ok", "clipped", "truncated", "empty", "outside"]

NOTHING: tuple[Status, ...] = ("empty", "outside")


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """One object's mask.

    Attributes:
        prompt_id: The prompt that asked for it.
        status: "ok"; "clipped": part of the prompt lay off the raster; "truncated": the object goes
            on beyond what the model saw; "empty": the model found nothing, or only no data;
            "outside": the prompt lies off the raster.
        logits: (h, w) float32, one a cell, meant for the cell's centre; the object is where they
            are above 0. None where the status is "empty" or "outside".
        frame: Where the cells lie; its shape is that of the logits.
        valid: (h * k, w * k) bool for a whole k: where the raster has data, at k x k pixels a
            cell. None: everywhere.
        score: The model's own estimate of the mask's IoU.
        stability: IoU of the masks at a higher and a lower threshold.
        tile: The tile it was decoded in: scale, row and column in the grid, with slashes between;
            of a tile that was made for the prompt, those of the pixel in its middle.
        scale: Raster pixels per tile pixel of that tile.
        candidate: 0 for the best mask of its prompt, 1 for the next.

    Raises:
        MaskError: If the status is unknown, or the arrays do not fit the status, the frame or
            each other.
    """

    prompt_id: str
    status: Status
    logits: npt.NDArray[np.float32] | None
    frame: Frame
    valid: npt.NDArray[np.bool_] | None
    score: float
    stability: float
    tile: str
    scale: float
    candidate: int = 0

    def __post_init__(self) -> None:
        if self.status not in get_args(Status):
            raise MaskError(
                f"{self}: status {self.status!r} (expected one of {', '.join(get_args(Status))})."
            )
        if (self.logits is None) != (self.status in NOTHING):
            raise MaskError(
                f"{self}: status {self.status!r} with{'out' if self.logits is None else ''} "
                f"logits (expected none if and only if it is {' or '.join(NOTHING)})."
            )
        if self.logits is not None:
            self._check_logits(self.logits)
        if self.valid is not None:
            self._check_valid(self.valid)

    def __str__(self) -> str:
        return f"Mask of prompt {self.prompt_id!r}"

    def _check_logits(self, logits: npt.NDArray[np.float32]) -> None:
        if logits.dtype != np.float32 or logits.shape != self.frame.shape:
            raise MaskError(
                f"{self}: logits are {logits.dtype} {logits.shape} (expected float32 "
                f"{self.frame.shape}, the shape of its frame)."
            )
        if not np.isfinite(logits).all():
            raise MaskError(f"{self}: a logit is NaN or infinite (expected finite numbers).")

    def _check_valid(self, valid: npt.NDArray[np.bool_]) -> None:
        height, width = self.frame.shape
        factor = valid.shape[0] // height
        if (
            valid.dtype != np.bool_
            or factor < 1
            or valid.shape != (height * factor, width * factor)
        ):
            raise MaskError(
                f"{self}: validity is {valid.dtype} {valid.shape} (expected bool, a whole multiple "
                f"of {self.frame.shape}, the shape of its frame)."
            )
