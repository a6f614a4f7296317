"""nano as the verbs see it: numpy in, numpy out, no gradients."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from geosam.model.engine import CPU, Engine
from geosam.model.focus import Focus, gather
from geosam.model.loaded import Loaded
from geosam.model.prompt_batches import batches, by_image, stack
from geosam.model.sam import PackedEncoder, Sam, unpack
from geosam.protocol import Features, Floats, TilePrompt

UNSEEN = -20.0  # logit of what lies outside a prompt's focus


class SamModel(Loaded):
    """A `Sam` network with its name; implements `geosam.protocol.Model`."""

    def __init__(self, network: Sam, name: str, engine: Engine = CPU) -> None:
        self.network = network.eval().requires_grad_(requires_grad=False).to(engine.device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # stub
        config = network.config
        encoder = PackedEncoder(network.image_encoder)
        super().__init__(encoder, config.packed_channels, config, name, engine)
        self.chunk = engine.prompts(config.grid**2 * config.width * torch.float32.itemsize)

    @torch.inference_mode()
    def decode(
        self,
        features: Features | Sequence[Features],
        prompts: Sequence[TilePrompt],
        *,
        multimask: bool,
        min_score: float | None = None,
    ) -> tuple[Floats, Floats]:
        """Prompts on one image, or each on its own -> logits (P, M, S/4, S/4) and scores (P, M).

        A prompt that gets no mask of `min_score` in its focus is not decoded in the whole image.
        """
        images: list[torch.Tensor] = [torch.empty(0)] * len(prompts)
        for image, own in by_image(features, prompts):
            packed = self.engine.tensor(image)[None]
            for i in own:
                images[i] = packed
        masks, side = 3 if multimask else 1, self.logits_size
        logits = np.full((len(prompts), masks, side, side), UNSEEN, np.float32)
        scores = np.empty((len(prompts), masks), np.float32)
        looks = [Focus.on(prompt, self.size) for prompt in prompts]
        waiting: Iterable[int] = range(len(prompts))
        while waiting := list(waiting):
            left = []
            for chosen in batches(prompts, waiting, self.chunk, [look.side for look in looks]):
                foci = [looks[i] for i in chosen]
                with self.engine.threads_for(len(prompts)):
                    packed = gather(foci, [images[i] for i in chosen])
                    result = self.network.decode(
                        unpack(packed, self.network.config),
                        stack([looks[i].shift(prompts[i]) for i in chosen], self.engine),
                        multimask=multimask,
                        origin=self.engine.tensor(
                            np.array([[look.x, look.y] for look in foci], np.float32)
                        ),
                    )
                found = (self.engine.array(part) for part in result)
                for i, new_logits, new_scores in zip(chosen, *found, strict=True):
                    logits[i, :, *looks[i].cells], scores[i] = new_logits, new_scores
                    best = new_scores.argmax()
                    if min_score is not None and new_scores[best] < min_score:
                        continue
                    if looks[i].is_left_by(new_logits[best]):
                        left.append(i)
                        looks[i] = Focus.whole(self.size)
            waiting = left
        return logits, scores.clip(0, 1)
