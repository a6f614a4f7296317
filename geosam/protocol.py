"""What geosam asks of a model, in numpy terms; no verb knows more of it than this."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Images: TypeAlias = npt.NDArray[np.uint8]
Features: TypeAlias = npt.NDArray[np.float16]
Floats: TypeAlias = npt.NDArray[np.float32]

Precision: TypeAlias = Literal["fp32", "bf16"]
Backend: TypeAlias = Literal["torch", "torch-compile", "openvino"]

Progress: TypeAlias = Callable[[int, int], None]
"""Called with (done, total). Whatever it raises ends the work; what is done is kept."""

TILES_AT_ONCE = 4
"""Tiles to decode together: a prompt on one is too little work for a CPU, and memory is bounded."""

FILL = (124, 116, 104)
"""Grey levels (R, G, B) that stand where there is no data: ImageNet's mean, which SAM's
normalisation turns into about 0."""

MASK_LOGIT = 3.0
"""How sure a rough mask is of itself as a prompt: enough to count, not to be copied."""


@dataclass(frozen=True, slots=True, eq=False)
class TilePrompt:
    """One object's prompt on one image, in px; the first pixel's centre is at (0, 0).

    Attributes:
        points: (N, 2) float32, x first; N may be 0.
        labels: (N,) int64, 1 on the object, 0 beside it.
        box: (4,) float32 (xmin, ymin, xmax, ymax), or None.
        mask: (s, s) float32 logits of a rough mask, on the grid of the model's own logits, or None.
    """

    points: Floats
    labels: npt.NDArray[np.int64]
    box: Floats | None = None
    mask: Floats | None = None


class Model(Protocol):
    """A promptable segmentation model.

    Attributes:
        id: name and first digits of the weights' hash; equal ids give equal features.
        size: side S of the square images it takes, px.
        logits_size: side s of the masks it gives; divides S.
        feature_shape: shape of one image's features.
        precision: in which it computes.
        device: on which it computes, for people to read.
        batch: how many images to encode at once; sets the peak memory.
    """

    @property
    def id(self) -> str: ...  # noqa: D102  # described above

    @property
    def size(self) -> int: ...  # noqa: D102

    @property
    def logits_size(self) -> int: ...  # noqa: D102

    @property
    def feature_shape(self) -> tuple[int, ...]: ...  # noqa: D102

    @property
    def precision(self) -> Precision: ...  # noqa: D102

    @property
    def device(self) -> str: ...  # noqa: D102

    @property
    def batch(self) -> int: ...  # noqa: D102

    def encode(self, images: Images) -> Features:
        """Images (B, 3, S, S) RGB -> features (B, *feature_shape), opaque to all but the model."""
        ...

    def decode(
        self,
        features: Features | Sequence[Features],
        prompts: Sequence[TilePrompt],
        *,
        multimask: bool,
        min_score: float | None = None,
    ) -> tuple[Floats, Floats]:
        """Masks of P prompts on one image, or each on an image of its own.

        Args:
            features: of the image, `feature_shape`; or P of them, of each prompt's image.
            prompts: P of them.
            multimask: several masks for an ambiguous prompt, else one.
            min_score: the logits of prompts of which no mask reaches it will not be looked at, so
                that they need not be made. None: all will.

        Returns:
            logits (P, M, s, s), the object where they are above 0, and scores (P, M) in 0..1, the
            model's own estimate of each mask's IoU.
        """
        ...
