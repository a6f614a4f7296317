"""Where networks compute and how: what is not there is refused by name."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from geosam import load_model
from geosam.errors import ModelError
from geosam.model.engine import CPU, Engine

PROBES = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")


@pytest.fixture
def bf16(monkeypatch):
    """A CPU that has bf16, or says so: torch computes the same without."""
    for probe in PROBES:
        monkeypatch.setattr(torch.cpu, probe, lambda: True, raising=False)


def test_the_cpu_in_single_precision_is_what_one_gets(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Engine.of() == CPU
    assert (CPU.precision, CPU.suffix) == ("fp32", "")


def test_bf16_is_refused_where_it_is_not(monkeypatch):
    for probe in PROBES:
        monkeypatch.setattr(torch.cpu, probe, lambda: False, raising=False)
    with pytest.raises(ModelError, match=r"bf16: cpu has no instructions.*Use fp32"):
        load_model(device="cpu", precision="bf16")


@pytest.mark.parametrize(
    ("wish", "match"),
    [
        ({"device": "tpu"}, r"Device 'tpu': not known \(expected auto, cpu, cuda or cuda:N\)"),
        ({"device": "cuda:99"}, r"Device 'cuda:99': not there \(expected one of the \d+ GPUs"),
        ({"device": "cpu", "precision": "fp8"}, r"Precision 'fp8': not known \(expected fp32 or"),
        ({"backend": "onnx"}, r"Backend 'onnx'"),
    ],
)
def test_unknown_wishes_are_refused(wish, match):
    with pytest.raises(ModelError, match=match):
        load_model(**wish)


def test_work_suits_the_device(monkeypatch):
    gpu = Engine(torch.device("cuda"), torch.bfloat16)
    for gigabytes, most in ((80, 512), (8, 256)):
        memory = SimpleNamespace(total_memory=gigabytes * 2**30)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _, memory=memory: memory)
        assert gpu.prompts(2**20) == most
    assert (CPU.prompts(2**20), CPU.prompts(10**9)) == (8, 1)
    assert (CPU.images, gpu.images) == (1, 16)


def test_features_in_bf16_are_told_apart_and_nearly_the_same(bf16):
    exact, light = load_model(device="cpu"), load_model(device="cpu", precision="bf16")
    assert (light.id, light.precision, light.device) == (f"{exact.id}-bf16", "bf16", "cpu")
    images = np.random.default_rng(0).integers(0, 256, (1, 3, 8, 8)).repeat(64, 2).repeat(64, 3)
    one, two = (
        model.encode(images.astype(np.uint8)).astype(np.float32) for model in (exact, light)
    )
    error = np.square(one - two).mean() / np.square(one).mean()
    assert 0 < error**0.5 < 0.1


def test_a_few_prompts_take_one_thread_and_give_the_others_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for prompts, threads in ((1, 1), (4, 1), (5, 2)):
            with CPU.threads_for(prompts):
                assert torch.get_num_threads() == threads
            assert torch.get_num_threads() == 2
        with pytest.raises(KeyError), CPU.threads_for(1):
            raise KeyError
        assert torch.get_num_threads() == 2
        gpu = Engine(torch.device("cuda"), torch.float32)
        with gpu.threads_for(1):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
