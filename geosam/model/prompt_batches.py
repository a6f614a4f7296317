"""Prompts of unequal kinds into batches of equal ones."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence

import numpy as np
from torch import Tensor

from geosam.model.engine import CPU, Engine
from geosam.model.prompt_encoder import Prompts
from geosam.protocol import Features, Floats, TilePrompt


def batches(
    prompts: Sequence[TilePrompt],
    chosen: Iterable[int],
    size: int,
    also: Sequence[Hashable] | None = None,
) -> Iterator[list[int]]:
    """Indices of prompts that can share a batch: equally many points and the same kinds.

    Padding would change the answers, because tokens that stand for nothing are attended to as well.

    Args:
        prompts: all prompts.
        chosen: indices of those wanted.
        size: prompts in a batch at most.
        also: something of each prompt that must be equal within a batch too.
    """
    groups: dict[tuple[Hashable, ...], list[int]] = defaultdict(list)
    for i in chosen:
        kinds = (prompts[i].box is None, prompts[i].mask is None)
        groups[(len(prompts[i].points), *kinds, also and also[i])].append(i)
    for group in groups.values():
        for start in range(0, len(group), size):
            yield group[start : start + size]


def by_image(
    features: Features | Sequence[Features], prompts: Sequence[TilePrompt]
) -> Iterator[tuple[Features, list[int]]]:
    """Each image with the indices of the prompts on it; see `geosam.protocol.Model.decode`."""
    if isinstance(features, np.ndarray):
        yield features, list(range(len(prompts)))
        return
    groups: dict[int, list[int]] = defaultdict(list)
    for i, image in enumerate(features):
        groups[id(image)].append(i)
    for group in groups.values():
        yield features[group[0]], group


def stack(prompts: Sequence[TilePrompt], engine: Engine = CPU) -> Prompts:
    """The prompts of a batch as tensors on the engine's device."""

    def stacked(parts: list[Floats | None]) -> Tensor | None:
        arrays = [part for part in parts if part is not None]
        return engine.tensor(np.stack(arrays)) if arrays else None

    return Prompts(
        engine.tensor(np.stack([prompt.points for prompt in prompts])),
        engine.tensor(np.stack([prompt.labels for prompt in prompts])),
        stacked([prompt.box for prompt in prompts]),
        stacked([prompt.mask for prompt in prompts]),
    )
