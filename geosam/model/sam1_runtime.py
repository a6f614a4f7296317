"""SAM as the verbs see it: numpy in, numpy out, no gradients."""

from collections.abc import Sequence

import numpy as np
import torch

from geosam.model.engine import CPU, Engine
from geosam.model.loaded import Loaded
from geosam.model.prompt_batches import batches, by_image, stack
from geosam.model.sam1 import Looked, Sam1, TileEncoder
from geosam.protocol import Features, Floats, TilePrompt

UNDRAWN = -20.0  # logit of all cells of a mask that was not drawn


class Sam1Model(Loaded):
    """A `Sam1` network with its name; implements `geosam.protocol.Model`.

    Tiles come in the size that SAM takes, so the reference's resizing does not occur. Where a tile
    has no data it is `geosam.protocol.FILL`, the mean in whole grey levels; that colour is read as
    the mean itself, which normalises to the 0 that the reference pads images with. Features are
    kept in half precision.
    """

    def __init__(self, network: Sam1, name: str, engine: Engine = CPU) -> None:
        self.network = network.eval().requires_grad_(requires_grad=False).to(engine.device)
        config = network.config
        super().__init__(TileEncoder(network.image_encoder), config.width, config, name, engine)
        self.network.cells_in(engine.dtype)
        self.code = network.prompt_encoder.cells_code()
        self.chunk = engine.prompts(config.grid**2 * config.width * engine.dtype.itemsize)

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
                `UNDRAWN`. None: every mask is drawn.
        """
        network, masks, side = self.network, 3 if multimask else 1, self.logits_size
        device = self.engine.device
        decoder = network.mask_decoder
        logits = torch.empty(len(prompts), masks, side, side, device=device)
        scores = torch.empty(len(prompts), masks, device=device)
        for own, indices in by_image(features, prompts):
            embedding = self.engine.tensor(own)[None]  # (1, C, S/16, S/16)
            image = network.prepare(embedding, self.code, lone=len(indices) == 1)
            for chosen in batches(prompts, indices, self.chunk):
                asked = stack([prompts[i] for i in chosen], self.engine)
                looked = network.look(embedding, image, asked)
                found = decoder.scores(looked.tokens, multimask=multimask)  # (P, M)
                drawn = self.engine.tensor(np.array(chosen))
                scores[drawn] = found
                if min_score is not None:
                    wanted = found.amax(1) >= min_score  # (P,)
                    logits[drawn[~wanted]] = UNDRAWN
                    drawn = drawn[wanted]
                    looked = Looked(*(part[wanted] for part in looked))
                if len(drawn):
                    logits[drawn] = decoder.logits(*looked, multimask=multimask)
        return self.engine.array(logits), self.engine.array(scores.clip(0, 1))
