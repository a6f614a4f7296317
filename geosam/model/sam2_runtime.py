"""SAM 2.1 as the verbs see it: numpy in, numpy out, no gradients."""

from collections.abc import Sequence

import numpy as np
import torch

from geosam.errors import ModelError
from geosam.model.engine import CPU, Engine
from geosam.model.loaded import Loaded
from geosam.model.prompt_batches import batches, by_image, stack
from geosam.model.sam1 import Looked
from geosam.model.sam1_runtime import UNDRAWN
from geosam.model.sam2 import PackedEncoder, Sam2
from geosam.protocol import Features, Floats, TilePrompt

MOST = 32.0  # logits beyond are cut off, as the reference does before it returns them


class Sam2Model(Loaded):
    """A `Sam2` network with its name; implements `geosam.protocol.Model`.

    Tiles come in the size that SAM 2 takes, so the reference's squashing does not occur. Features
    are kept in half precision: the embedding and the finer features, folded to stride 16.
    """

    def __init__(self, network: Sam2, name: str, engine: Engine = CPU) -> None:
        self.network = network.eval().requires_grad_(requires_grad=False).to(engine.device)
        config = network.config
        encoder = PackedEncoder(network.image_encoder)
        super().__init__(encoder, config.packed_channels, config, name, engine)
        self.network.cells_in(engine.dtype)
        self.code = network.prompt_encoder.cells_code()
        self.chunk = engine.prompts(config.grid**2 * config.width * engine.dtype.itemsize)

    def _features(self, images: torch.Tensor) -> torch.Tensor:
        packed = super()._features(images)
        if not packed.isfinite().all():
            raise ModelError(
                f"Model {self.id!r}: features beyond the range of half precision (expected at "
                "most 65504). Its weights are damaged or from another network."
            )
        return packed

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

        Args:
            features: of the image, or of each prompt's image.
            prompts: P of them.
            multimask: three masks for an ambiguous prompt, else one.
            min_score: prompts of which no mask reaches it are not drawn; all their logits are
                `UNDRAWN`, and the score of a single one is the highest that it could have had.
                None: every mask is drawn.
        """
        network, masks, side = self.network, 3 if multimask else 1, self.logits_size
        device, decoder = self.engine.device, network.mask_decoder
        logits = torch.full((len(prompts), masks, side, side), UNDRAWN, device=device)
        scores = torch.empty(len(prompts), masks, device=device)
        for own, indices in by_image(features, prompts):
            packed = self.engine.tensor(own)[None]
            image = network.prepare(packed, self.code, lone=len(indices) == 1)
            for chosen in batches(prompts, indices, self.chunk):
                asked = stack([prompts[i] for i in chosen], self.engine)
                looked = network.look(image, asked)
                estimates = decoder.estimates(looked.tokens)  # (P, 4)
                most = estimates[:, 1:] if multimask else estimates.amax(1, keepdim=True)
                drawn = self.engine.tensor(np.array(chosen))
                scores[drawn] = most
                if min_score is not None:
                    wanted = most.amax(1) >= min_score  # (P,)
                    drawn, estimates = drawn[wanted], estimates[wanted]
                    looked = Looked(*(part[wanted] for part in looked))
                if len(drawn):
                    found, best = decoder.answer(
                        *looked, image.skips, estimates, multimask=multimask
                    )  # (P, M, s, s) and (P, M)
                    logits[drawn] = found.clamp(-MOST, MOST)
                    scores[drawn] = best
        return self.engine.array(logits), self.engine.array(scores)
