"""Image encoders compiled by torch itself: quicker, after a minute or two at each start."""

import logging

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

WORDS = 30  # of what the compiler says; its first lines tell the reason

log = logging.getLogger(__name__)


class CompiledEncoder:
    """An encoder that is compiled when it is first used; where that fails, it is run as it is."""

    def __init__(self, encoder: nn.Module, name: str) -> None:
        self._encoder, self._name = encoder, name
        self._compiled = torch.compile(encoder)

    def __call__(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S), uint8 -> features (B, C, h, w)."""
        try:
            features: Tensor = self._compiled(images)
        except TorchDynamoException as error:
            log.warning(
                "Backend torch-compile: %s: %s. Encoding without compiling instead, which is "
                "slower; leave the backend out to be rid of this message.",
                self._name, " ".join(str(error).split()[:WORDS]),
            )  # fmt: skip
            self._compiled = self._encoder
            features = self._encoder(images)
        return features
