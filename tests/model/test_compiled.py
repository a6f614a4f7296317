"""Encoders compiled by torch give what they give uncompiled, and fail in the open."""

from pathlib import Path

import numpy as np
import pytest
import torch

from geosam import load_model
from geosam.model import sam1_weights
from geosam.model.engine import CPU, Engine
from geosam.model.sam1_runtime import Sam1Model
from geosam.model.sam1_weights import build_sam1
from tests.references import image
from tests.seeded import TINY, official


def tiny(backend):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sam1_weights, "CONFIGS", {"tiny": TINY})
        network = build_sam1(official(), Path("tiny.pth"))
    return Sam1Model(network, "tiny", Engine(CPU.device, torch.float32, backend))


def nano(backend):
    return load_model(device="cpu", backend=backend)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # torch's own, about what it compiles with
@pytest.mark.parametrize("build", [tiny, nano])
def test_compiled_features_are_the_same(build):
    plain, compiled = build("torch"), build("torch-compile")
    assert compiled.id == plain.id
    pictures = np.concatenate([image(0, plain.size), image(1, plain.size)])
    ours, theirs = compiled.encode(pictures), plain.encode(pictures)
    assert compiled.encoder._compiled is not compiled.encoder._encoder
    np.testing.assert_allclose(ours, theirs, atol=2e-3, rtol=1e-3)


def test_what_cannot_be_compiled_is_run_as_it_is(monkeypatch, caplog):
    from torch._dynamo.exc import BackendCompilerFailed

    def fail(images):
        raise BackendCompilerFailed(print, RuntimeError("no C++ compiler"), None)

    monkeypatch.setattr(torch, "compile", lambda encoder: fail)
    features = tiny("torch-compile").encode(image())
    assert np.array_equal(features, tiny("torch").encode(image()))
    assert "Backend torch-compile: tiny" in caplog.text and "no C++ compiler" in caplog.text
