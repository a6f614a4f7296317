"""Whether loaded models are one and the same."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from tests.references import image, prompts


def same_models(models: Sequence[Any]) -> None:
    """All have the same tensors, to the bit, and answer alike.

    The answers may differ by rounding: on some CPUs a product depends on where in memory its
    factors lie.
    """
    weights, *answers = _of(models[0])
    for model in models[1:]:
        other_weights, *other_answers = _of(model)
        assert other_weights.keys() == weights.keys()
        assert all(torch.equal(other_weights[key], weights[key]) for key in weights)
        for one, two in zip(answers, other_answers, strict=True):
            np.testing.assert_allclose(two.astype(np.float32), one.astype(np.float32), atol=2e-3)


def _of(model: Any) -> tuple[Any, ...]:
    features = model.encode(image())[0]
    answer = model.decode(features, prompts("box"), multimask=True)
    return model.network.state_dict(), features, *answer
