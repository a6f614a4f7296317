"""Whether loaded models are one and the same."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from geosam.protocol import Features, Model, TilePrompt
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


def own_images_change_nothing(
    model: Model, features: Features, asked: Sequence[TilePrompt], *, multimask: bool
) -> None:
    """Prompts in turn on several images are answered as each is alone on its image."""
    images = list(features)
    own = [images[i % len(images)] for i in range(len(asked))]
    together, scores = model.decode(own, asked, multimask=multimask)
    for i, prompt in enumerate(asked):
        alone, own_scores = model.decode(own[i], [prompt], multimask=multimask)
        np.testing.assert_allclose(together[i], alone[0], atol=2e-5)
        np.testing.assert_allclose(scores[i], own_scores[0], atol=2e-5)


def _of(model: Any) -> tuple[Any, ...]:
    features = model.encode(image())[0]
    answer = model.decode(features, prompts("box"), multimask=True)
    return model.network.state_dict(), features, *answer
