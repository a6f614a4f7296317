"""A network as the verbs see it: numpy in, numpy out, no gradients."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from geosam.model.prompt_encoder import Prompts
from geosam.model.sam import Sam, pack, unpack
from geosam.protocol import Features, Floats, Images, TilePrompt

DECODE_CHUNK = 8  # prompts at a time: more would fall out of the CPU's cache


class SamModel:
    """A `Sam` network with its name; implements `geosam.protocol.Model`."""

    def __init__(self, network: Sam, name: str) -> None:
        self.network = network.eval().requires_grad_(requires_grad=False)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # stub
        self.id = name
        config = network.config
        self.size = config.size
        self.logits_size = config.logits_size
        self.feature_shape = (config.packed_channels, config.grid, config.grid)

    @torch.inference_mode()
    def encode(self, images: Images) -> Features:
        """Images (B, 3, S, S) -> features (B, packed_channels, S/16, S/16)."""
        tensor = torch.from_numpy(images).float().to(memory_format=torch.channels_last)
        packed: Features = pack(self.network.encode(tensor)).half().contiguous().numpy()
        return packed

    @torch.inference_mode()
    def decode(
        self, features: Features, prompts: Sequence[TilePrompt], *, multimask: bool
    ) -> tuple[Floats, Floats]:
        """Prompts on one image -> logits (P, M, S/4, S/4) and scores (P, M)."""
        own = unpack(torch.from_numpy(features)[None].float(), self.network.config)
        masks = 3 if multimask else 1
        size = self.logits_size
        logits = np.empty((len(prompts), masks, size, size), np.float32)
        scores = np.empty((len(prompts), masks), np.float32)
        for group in _alike(prompts):
            for start in range(0, len(group), DECODE_CHUNK):
                chosen = group[start : start + DECODE_CHUNK]
                batch = _stack([prompts[i] for i in chosen])
                result = self.network.decode(own, batch, multimask=multimask)
                logits[chosen], scores[chosen] = (part.numpy() for part in result)
        return logits, scores.clip(0, 1)


def _alike(prompts: Sequence[TilePrompt]) -> list[list[int]]:
    """Indices of prompts that can share a batch: equally many points, same kinds of prompt."""
    groups: dict[tuple[int, bool, bool], list[int]] = defaultdict(list)
    for index, prompt in enumerate(prompts):
        kind = (len(prompt.points), prompt.box is None, prompt.mask is None)
        groups[kind].append(index)
    return list(groups.values())


def _stack(prompts: Sequence[TilePrompt]) -> Prompts:
    def stacked(parts: list[Floats | None]) -> Tensor | None:
        arrays = [part for part in parts if part is not None]
        return torch.from_numpy(np.stack(arrays)) if arrays else None

    return Prompts(
        torch.from_numpy(np.stack([prompt.points for prompt in prompts])),
        torch.from_numpy(np.stack([prompt.labels for prompt in prompts])),
        stacked([prompt.box for prompt in prompts]),
        stacked([prompt.mask for prompt in prompts]),
    )
