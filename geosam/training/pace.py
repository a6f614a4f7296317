"""How long a run may take, and how its learning rates go down until then."""

import math
from dataclasses import dataclass

from geosam.protocol import Progress


@dataclass(frozen=True, slots=True)
class Limit:
    """How long a run may take: steps, or where there are none, seconds."""

    seconds: float
    steps: int | None
    progress: Progress | None = None

    def share(self, step: int, seconds: float) -> float:
        """The share of it that a run has used up, 1 at its end."""
        done, total = (step, self.steps) if self.steps else (seconds, self.seconds)
        if self.progress:
            self.progress(min(int(done), int(total)), int(total))
        return min(1.0, done / total)


def decayed(share: float) -> float:
    """What is left of the peak rate when a share of a run is over: a cosine to a hundredth."""
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share))
