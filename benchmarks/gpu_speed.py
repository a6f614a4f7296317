"""What images and prompts cost on a GPU, beside its limit and the published code.

    python -m benchmarks.gpu_speed [--models vit-h,vit-b,nano] [--compile vit-b] [--meta vit-b]

Random weights: cost and rounding do not depend on training. Times are medians of wall seconds over
the rounds, after one that is not counted:

- net: images on the GPU to features on the GPU, a batch at a time; the share is that of the
  floating point operations in it to what the GPU does in one large matrix product.
- encode: `Model.encode`, from arrays to arrays.
- prompts: `Model.decode` of so many clicks on one image, from arrays to arrays: asked at once, and
  64 at a time.

Peak memory is what torch had in use at most, with the weights. The error is that of features
against the same network in fp32, relative to their spread; IoU is that of the masks: median / 5th
percentile. Meta's figures are of its own encoder in the same precision (autocast), at the better of
batches of 1 and 4, and of its own decoder, 64 clicks at a time, masks left on the GPU.
"""

import argparse
import time
from collections.abc import Callable
from contextlib import nullcontext
from statistics import median

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from geosam.model.config import (
    HIERA_BASE_PLUS,
    HIERA_LARGE,
    HIERA_SMALL,
    HIERA_TINY,
    MOBILE_SAM,
    NANO,
    VIT_B,
    VIT_H,
    VIT_L,
    Sam1Config,
    Sam2Config,
    SamConfig,
)
from geosam.model.engine import DTYPES, Engine
from geosam.model.runtime import SamModel
from geosam.model.sam import Sam
from geosam.model.sam1 import Sam1
from geosam.model.sam1_runtime import Sam1Model
from geosam.model.sam2 import Sam2
from geosam.model.sam2_runtime import Sam2Model
from geosam.protocol import Backend, Precision, TilePrompt
from tests.references import Meta, image

CONFIGS: dict[str, Sam1Config | Sam2Config | SamConfig] = {
    "vit-h": VIT_H,
    "vit-l": VIT_L,
    "vit-b": VIT_B,
    "mobile": MOBILE_SAM,
    "hiera-large": HIERA_LARGE,
    "hiera-base-plus": HIERA_BASE_PLUS,
    "hiera-small": HIERA_SMALL,
    "hiera-tiny": HIERA_TINY,
    "nano": NANO,
}
CLICKS = 1024


def build(
    name: str, precision: Precision, device: str, backend: Backend = "torch"
) -> Sam1Model | Sam2Model | SamModel:
    """A model with random weights of which none is degenerate."""
    config = CONFIGS[name]
    torch.manual_seed(0)
    engine = Engine.of(device, precision, backend)
    with torch.device(engine.device):
        network = {Sam1Config: Sam1, Sam2Config: Sam2, SamConfig: Sam}[type(config)](config)
        for key, parameter in network.named_parameters():
            if "rel_pos" in key or "pos_embed" in key:
                torch.nn.init.normal_(parameter, std=0.2)
    kind = {Sam1: Sam1Model, Sam2: Sam2Model, Sam: SamModel}[type(network)]
    return kind(network, f"random-{name}", engine)


def seconds(work: Callable[[], object], rounds: int) -> float:
    work()
    taken = []
    for _ in range(rounds):
        torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return median(taken)


def limit(dtype: torch.dtype, rounds: int) -> float:
    """Floating point operations a second in one large matrix product."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=dtype) for _ in range(2))
    return 2 * 8192**3 / seconds(lambda: a @ b, rounds)


def operations(name: str) -> int:
    """Floating point operations of the network for one image."""
    config = CONFIGS[name]
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        network = {Sam1Config: Sam1, Sam2Config: Sam2, SamConfig: Sam}[type(config)](config)
        network.image_encoder(torch.empty(1, 3, config.size, config.size))
    return counter.get_total_flops()


def clicks(size: int) -> list[TilePrompt]:
    places = np.random.default_rng(0).uniform(0, size, (CLICKS, 1, 2)).astype(np.float32)
    return [TilePrompt(xy, np.ones(1, np.int64)) for xy in places]


def measure(name: str, precision: Precision, backend: Backend, rounds: int, most: float) -> None:
    exact = build(name, "fp32", "cuda")
    size = exact.size
    tiles = np.concatenate([image(i, size) for i in range(exact.batch)])
    expected = exact.encode(tiles[:2]).astype(np.float32)
    asked = clicks(size)
    masks = exact.decode(expected[0].astype(np.float16), asked[:64], multimask=True)[0] > 0
    del exact
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    model = build(name, precision, "cuda", backend)
    own = model.encode(tiles[:2]).astype(np.float32)
    found = model.decode(own[0].astype(np.float16), asked[:64], multimask=True)[0] > 0
    features = own[0].astype(np.float16)
    error = np.sqrt(np.square(own - expected).mean()) / expected.std()
    either = (found | masks).sum((-1, -2))
    iou = ((found & masks).sum((-1, -2)) / either.clip(1))[either > 0]
    on_gpu = torch.from_numpy(tiles).cuda()

    @torch.inference_mode()
    def net() -> object:
        return model.encoder(on_gpu)

    def decode(count: int) -> float:
        def work() -> None:
            for start in range(0, CLICKS, count):
                model.decode(features, asked[start : start + count], multimask=True)

        return 1000 * seconds(work, rounds)

    net_s = seconds(net, rounds) / len(tiles)
    encode_s = seconds(lambda: model.encode(tiles), rounds) / len(tiles)
    peak = torch.cuda.max_memory_allocated() / 1e9
    share = operations(name) / net_s / most
    print(
        f"{name:16}{backend:14}{precision:6}{1 / net_s:9.1f}{100 * share:7.0f} %{1 / encode_s:9.1f}"
        f"{decode(CLICKS):11.1f}{decode(64):9.1f}"
        f"{peak:9.2f}{error:9.0e}{np.median(iou):9.4f} /{np.percentile(iou, 5):7.4f}",
        flush=True,
    )


def measure_meta(name: str, precision: Precision, rounds: int, most: float) -> None:
    """The same of Meta's code."""
    config = CONFIGS[name]
    half = torch.autocast("cuda", DTYPES[precision]) if precision != "fp32" else nullcontext()
    with torch.device("cuda"):
        network = Meta.untrained(config).eval()
        places = torch.rand(64, 1, 2) * config.size
        labels = torch.ones(64, 1)

    def encode(batch: int) -> Callable[[], object]:
        pixels = torch.randn(batch, 3, config.size, config.size, device="cuda")

        def work() -> object:
            with torch.inference_mode(), half:
                return network.image_encoder(pixels)

        return work

    net_s = min(seconds(encode(batch), rounds) / batch for batch in (1, 4))
    embedding = encode(1)()

    def decode() -> None:
        with torch.inference_mode(), half:
            code = network.prompt_encoder.get_dense_pe()
            for _ in range(CLICKS // 64):
                sparse, dense = network.prompt_encoder((places, labels), None, None)
                network.mask_decoder(embedding, code, sparse, dense, multimask_output=True)

    share = operations(name) / net_s / most
    print(
        f"{'Meta ' + name:30}{precision:6}{1 / net_s:9.1f}{100 * share:7.0f} %{'':20}"
        f"{1000 * seconds(decode, rounds):9.1f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", default=",".join(CONFIGS), help="Names with commas between.")
    parser.add_argument("--precision", default="bf16", choices=list(DTYPES))
    parser.add_argument("--compile", default="", help="Those to measure compiled by torch too.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--meta", default="vit-h,vit-b", help="Those to measure Meta's code with.")
    arguments = parser.parse_args()
    most = limit(DTYPES[arguments.precision], arguments.rounds)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    print(f"one large matrix product in {arguments.precision}: {most / 1e12:.0f} TFLOP/s")
    print(f"{'':36}{'net':>9}{'of':>9}{'encode':>9}{CLICKS:>5} prompts{'by 64':>8}{'peak':>9}")
    print(
        f"{'model':36}{'tiles/s':>9}{'limit':>9}{'tiles/s':>9}{'ms':>11}{'ms':>9}{'GB':>9}"
        f"{'error':>9}{'IoU':>16}"
    )
    compiled = filter(None, arguments.compile.split(","))
    rows: list[tuple[str, Backend]] = [(name, "torch") for name in arguments.models.split(",")]
    for name, backend in rows + [(name, "torch-compile") for name in compiled]:
        measure(name, arguments.precision, backend, arguments.rounds, most)
        torch.cuda.empty_cache()
    for name in filter(None, arguments.meta.split(",")):
        measure_meta(name, arguments.precision, arguments.rounds, most)


if __name__ == "__main__":
    main()
