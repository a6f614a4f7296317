"""What an image and a prompt cost in each engine, beside the published code, with the same weights.

    python -m benchmarks.sam_speed [--model vit-b] [--engines Meta,torch] [--threads 1] [--rounds 3]

Random weights (cost and rounding do not depend on training), or nano's own. All engines of a model
take turns in one process. CPU seconds, which neighbours on a shared machine distort less, are the
medians over the rounds, wall seconds the least; ratios are those of CPU seconds, and above 1 where
an engine is faster than the first. A prompt's share is that of one among `--prompts` clicks on one
embedding. Peak memory is what encoding a tile takes above the weights, in a process of its own
(Linux). The error is that of the embedding, relative to its spread; IoU is that of the masks with
the first engine's, decoded from its embedding: median / 5th percentile. Random weights give masks
like noise, whose IoU suffers most.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from statistics import median

import numpy as np
import rasterio
import torch

from geosam import load_model
from geosam.errors import ModelError
from geosam.model.config import VIT_B
from geosam.model.engine import Engine
from geosam.model.sam1_runtime import Sam1Model
from geosam.model.sam1_weights import build_sam1
from geosam.protocol import Backend, Model, Precision, TilePrompt
from tests.references import HuggingFace, Meta, image
from tests.seeded import in_hugging_face, official

Decoded = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Runner:
    """An engine with a model in it: images to embeddings, clicks on an embedding to masks."""

    encode: Callable[[np.ndarray], np.ndarray]
    decode: Callable[[np.ndarray, Sequence[TilePrompt]], Decoded]


def meta() -> Runner:
    reference = Meta(VIT_B)
    return Runner(
        reference.encode,
        lambda features, clicks: reference.decode(
            features[None].astype(np.float32), list(clicks), multimask=True
        ),
    )


def transformers() -> Runner:
    reference = HuggingFace(VIT_B)
    weights = in_hugging_face(official(VIT_B), VIT_B)
    reference.network.load_state_dict(weights, strict=False)  # one tensor is there twice

    @torch.inference_mode()
    def decode(features: np.ndarray, clicks: Sequence[TilePrompt]) -> Decoded:
        out = reference.network(
            image_embeddings=torch.from_numpy(features[None].astype(np.float32)),
            input_points=torch.from_numpy(np.stack([click.points for click in clicks]))[None],
            input_labels=torch.from_numpy(np.stack([click.labels for click in clicks]))[None],
        )
        return out.pred_masks[0].numpy(), out.iou_scores[0].numpy()

    return Runner(reference.encode, decode)


def sam_vit_b(precision: Precision, backend: Backend = "torch") -> Runner:
    network = build_sam1(official(VIT_B), Path("vit_b.pth"))
    return geosam(Sam1Model(network, "seeded-vit-b", Engine.of("cpu", precision, backend)))


def nano(precision: Precision, backend: Backend = "torch") -> Runner:
    return geosam(load_model("nano", device="cpu", precision=precision, backend=backend))


def geosam(model: Model) -> Runner:
    return Runner(model.encode, partial(model.decode, multimask=True))


ENGINES: dict[str, dict[tuple[str, str], Callable[[], Runner]]] = {
    "vit-b": {
        ("Meta", "fp32"): meta,
        ("transformers", "fp32"): transformers,
        ("torch", "fp32"): partial(sam_vit_b, "fp32"),
        ("torch", "bf16"): partial(sam_vit_b, "bf16"),
        ("openvino", "fp32"): partial(sam_vit_b, "fp32", "openvino"),
        ("openvino", "bf16"): partial(sam_vit_b, "bf16", "openvino"),
    },
    "nano": {
        ("torch", "fp32"): partial(nano, "fp32"),
        ("torch", "bf16"): partial(nano, "bf16"),
        ("openvino", "fp32"): partial(nano, "fp32", "openvino"),
        ("openvino", "bf16"): partial(nano, "bf16", "openvino"),
    },
}
SIZES = {"vit-b": 1024, "nano": 512}


class Times:
    """CPU and wall seconds of one kind of work in one engine."""

    def __init__(self) -> None:
        self.cpu: list[float] = []
        self.wall: list[float] = []

    def of(self, work: Callable, count: int = 1):
        cpu, wall = time.process_time(), time.perf_counter()
        result = work()
        self.cpu.append((time.process_time() - cpu) / count)
        self.wall.append((time.perf_counter() - wall) / count)
        return result

    def beside(self, first: "Times") -> str:
        ratio = median(first.cpu) / median(self.cpu)
        return f"{median(self.cpu):9.4f}{min(self.wall):9.4f}{ratio:7.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=ENGINES, default="vit-b")
    parser.add_argument("--engines", help="Names with commas between; all by default.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    factories, tile = ENGINES[arguments.model], picture(arguments.model)
    if arguments.memory:
        print(peak_gb(factories[tuple(arguments.memory)](), tile))
        return
    wanted = arguments.engines.split(",") if arguments.engines else None
    runners = {}
    for name, factory in factories.items():
        if wanted is None or name[0] in wanted:
            try:
                runners[name] = factory()
            except ModelError as error:
                print(f"{' '.join(name)} is left out: {error}")
    size = SIZES[arguments.model]
    places = np.random.default_rng(0).uniform(0, size, (arguments.prompts, 1, 2))
    clicks = [TilePrompt(xy.astype(np.float32), np.ones(1, np.int64)) for xy in places]
    encoding, decoding = ({name: Times() for name in runners} for _ in range(2))
    features = next(iter(runners.values())).encode(tile)[0].astype(np.float16)
    embeddings, masks = {}, {}
    for _ in range(arguments.rounds):
        for name, runner in runners.items():
            embeddings[name] = encoding[name].of(partial(runner.encode, tile))[0]
        for name, runner in runners.items():
            work = partial(runner.decode, features, clicks)
            masks[name] = decoding[name].of(work, len(clicks))[0] > 0
    first = next(iter(runners))
    print(f"{arguments.model}, {arguments.threads} threads, torch {torch.__version__}")
    print(f"{'':24}{'tile':>6}{'':19}{'prompt':>6}")
    print(f"{'engine':24}" + f"{'CPU s':>9}{'wall s':>9}{'ratio':>7}" * 2, end="")
    print(f"{'peak GB':>9}{'error':>9}{'IoU':>16}")
    for name in runners:
        words = [sys.executable, "-m", "benchmarks.sam_speed", "--memory", *name]
        words += ["--model", arguments.model, "--threads", str(arguments.threads)]
        peak = float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
        iou = iou_of(masks[name], masks[first])
        print(
            f"{' '.join(name):24}{encoding[name].beside(encoding[first])}"
            f"{decoding[name].beside(decoding[first])}{peak:9.2f}"
            f"{error_of(embeddings[name], embeddings[first]):9.0e}"
            f"{np.median(iou):9.4f} /{np.percentile(iou, 5):7.4f}"
        )


def picture(model: str) -> np.ndarray:
    """(1, 3, S, S) uint8: noise for random weights, the demo's image for nano."""
    if model != "nano":
        return image(size=SIZES[model])
    with rasterio.open(files("geosam") / "demo/OSBS_029.tif") as source:
        return source.read(out_shape=(3, SIZES[model], SIZES[model]))[None]


def peak_gb(runner: Runner, tile: np.ndarray) -> float:
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = resident_gb("VmRSS")
    runner.encode(tile)
    return resident_gb("VmHWM") - before


def resident_gb(what: str) -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{what}:")[1].split()[0]) / 1e6


def error_of(found: np.ndarray, expected: np.ndarray) -> float:
    found, expected = found.astype(np.float32), expected.astype(np.float32)
    return float(np.sqrt(np.square(found - expected).mean()) / expected.std())


def iou_of(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """IoU of each mask (..., H, W) that is not empty."""
    both, either = ((op(found, expected)).sum((-1, -2)) for op in (np.logical_and, np.logical_or))
    return (both[either > 0] / either[either > 0]).ravel()


if __name__ == "__main__":
    main()
