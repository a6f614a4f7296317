"""What all models have in common: they encode in batches, and travel by name.

Who unpickles a model loads the same weights where it is.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from geosam.errors import ModelError, WeightsError
from geosam.model.config import Sam1Config, Sam2Config, SamConfig
from geosam.model.engine import Engine
from geosam.protocol import Features, Images, Precision


class Loaded:
    """A network of which only the decoding is left to say.

    Attributes beside those of `geosam.protocol.Model`:
        engine: that runs it.
        encoder: images (B, 3, S, S), uint8 -> features (B, C, S/16, S/16).
        load: how it was loaded; None if it was made otherwise.
    """

    load: "Callable[[], Loaded] | None" = None

    def __init__(
        self,
        encoder: nn.Module,
        channels: int,
        config: SamConfig | Sam1Config | Sam2Config,
        name: str,
        engine: Engine,
    ) -> None:
        """A model whose encoder makes so many channels."""
        self.engine = engine
        self.id = name + engine.suffix
        self.encoder = engine.encoder(encoder, self.id, config.size)
        self.precision: Precision = engine.precision
        self.device, self.batch = str(engine.device), engine.images
        self.size, self.logits_size = config.size, config.logits_size
        self.feature_shape = (channels, config.grid, config.grid)

    @torch.inference_mode()
    def encode(self, images: Images) -> Features:
        """Images (B, 3, S, S) -> features (B, C, S/16, S/16), in half precision.

        Raises:
            ModelError: features are too large for it.
        """
        return self.engine.in_batches(self._features, images, self.batch)

    def _features(self, images: Tensor) -> Tensor:
        features: Tensor = self.encoder(images).half()
        # As they lie in a store: channel by channel. Matrices turn fastest.
        own = [image.flatten(1).contiguous() for image in features]  # (C, S/16 * S/16) each
        return torch.stack(own).view(features.shape)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.load is None:
            raise ModelError(
                f"Model {self.id}: made in memory (expected one from load_model). Save its weights "
                "and load them by their path."
            )
        return _load, (self.load, self.id)


def _load(load: Callable[[], Loaded], expected_id: str) -> Loaded:
    model = load()
    if model.id != expected_id:
        raise WeightsError(
            f"Model {model.id}: other weights (expected {expected_id}). Put the same file there "
            "under the same name."
        )
    return model
