"""What an image and a prompt cost in each engine, beside the published code, with the same weights.

    python -m benchmarks.sam_speed [--models vit-b,nano] [--engines Meta,torch] [--threads 1]

Random weights (cost and rounding do not depend on training), or nano's own; what nano is measured
against is its encoder as its sources write it, in torch without our shortcuts. All engines of a
model take turns in one process, each for a second at least, as tiles come one after another.
Seconds are medians over the rounds, ratios above 1 where an engine is faster than the first: CPU
seconds, which neighbours on a shared machine distort less, and wall seconds, which are what one
waits on an idle one. A prompt's share is that of one among `--prompts` clicks on one embedding.
Peak memory is what encoding a tile takes above the weights, in a process of its own (Linux). The
error is that of the embedding, relative to its spread; IoU is that of the masks with the first
engine's, each decoded from its own embedding: median / 5th percentile. Random weights give masks
like noise, whose IoU suffers most.

The lines after the engines are none: they say how long the encoder's products would take at the
speed of one large matrix product of torch, measured in turn with the engines; bf16 where the CPU
has it. The last lines say what a prompt costs in torch when there are more of them on one
embedding, asked 64 at a time, as geosam does; for SAM and MobileSAM also apart, what is done once
an image (a lone prompt goes without most of it) and what each prompt takes beyond that.

hiera-tiny needs Meta's package:

    SAM2_BUILD_CUDA=0 pip install --no-build-isolation --no-deps sam2==1.1.0
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import rasterio
import torch
from _pytest.outcomes import Skipped
from torch.utils.flop_counter import FlopCounterMode

from geosam import load_model
from geosam.errors import ModelError
from geosam.model.config import HIERA_TINY, MOBILE_SAM, VIT_B
from geosam.model.engine import Engine
from geosam.model.mobile_weights import build_mobile_sam
from geosam.model.prompt_batches import batches, stack
from geosam.model.runtime import SamModel
from geosam.model.sam import pack, unpack
from geosam.model.sam1_runtime import Sam1Model
from geosam.model.sam1_weights import build_sam1
from geosam.model.sam2_runtime import Sam2Model
from geosam.model.sam2_weights import build_sam2
from geosam.protocol import Backend, Model, Precision, TilePrompt
from tests.reference_nano import PlainNano
from tests.references import HuggingFace, Meta, MobileSam, image
from tests.references_sam2 import Meta2, arrays
from tests.seeded import in_hugging_face, official, official_2, official_mobile

Decoded = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Runner:
    """An engine with a model in it.

    Attributes:
        encode: an image to its features.
        decode: clicks on features to masks.
        embedding: the part of features that all engines have alike.
        model: ours, if it is.
    """

    encode: Callable[[np.ndarray], Any]
    decode: Callable[[Any, Sequence[TilePrompt]], Decoded]
    embedding: Callable[[Any], np.ndarray] = np.asarray
    model: Model | None = None


def published(reference: Meta) -> Runner:
    return Runner(
        reference.encode,
        lambda features, clicks: reference.decode(features, list(clicks), multimask=True),
    )


def meta_2() -> Runner:
    reference = Meta2(HIERA_TINY)
    return Runner(
        reference.encode,
        lambda features, clicks: reference.decode(features, list(clicks), multimask=True),
        lambda features: features[0],
    )


def transformers() -> Runner:
    reference = HuggingFace(VIT_B)
    weights = in_hugging_face(official(VIT_B), VIT_B)
    reference.network.load_state_dict(weights, strict=False)  # one tensor is there twice

    @torch.inference_mode()
    def decode(features: np.ndarray, clicks: Sequence[TilePrompt]) -> Decoded:
        out = reference.network(
            image_embeddings=torch.from_numpy(features),
            input_points=torch.from_numpy(np.stack([click.points for click in clicks]))[None],
            input_labels=torch.from_numpy(np.stack([click.labels for click in clicks]))[None],
        )
        return out.pred_masks[0].numpy(), out.iou_scores[0].numpy()

    return Runner(reference.encode, decode)


def sam_vit_b(precision: Precision, backend: Backend = "torch") -> Runner:
    network = build_sam1(official(VIT_B), Path("vit_b.pth"))
    return geosam(Sam1Model(network, "seeded-vit-b", Engine.of("cpu", precision, backend)))


def mobile_sam(precision: Precision, backend: Backend = "torch") -> Runner:
    network = build_mobile_sam(official_mobile(MOBILE_SAM), Path("mobile_sam.pt"))
    return geosam(Sam1Model(network, "seeded-mobile", Engine.of("cpu", precision, backend)))


def hiera_tiny(precision: Precision, backend: Backend = "torch") -> Runner:
    network = build_sam2(official_2(HIERA_TINY), Path("hiera_tiny.pt"))
    return geosam(
        Sam2Model(network, "seeded-hiera-tiny", Engine.of("cpu", precision, backend)),
        lambda features: arrays(unpack(torch.from_numpy(features), HIERA_TINY))[0],
    )


def nano(precision: Precision, backend: Backend = "torch") -> Runner:
    return geosam(load_model("nano", device="cpu", precision=precision, backend=backend))


def plain_nano() -> Runner:
    model = load_model("nano", device="cpu")
    assert isinstance(model, SamModel)
    encoder = PlainNano(model.network.state_dict())
    return replace(geosam(model), encode=lambda tile: pack(encoder(torch.from_numpy(tile))).numpy())


def geosam(model: Model, embedding: Callable[[Any], np.ndarray] = np.asarray) -> Runner:
    return Runner(
        model.encode,
        lambda features, clicks: model.decode(features[0], clicks, multimask=True),
        embedding,
        model,
    )


Factories = dict[tuple[str, str], Callable[[], Runner]]


def ours(build: Callable[..., Runner]) -> Factories:
    return {
        ("torch", "fp32"): partial(build, "fp32"),
        ("torch", "bf16"): partial(build, "bf16"),
        ("openvino", "fp32"): partial(build, "fp32", "openvino"),
        ("openvino", "bf16"): partial(build, "bf16", "openvino"),
    }


ENGINES: dict[str, Factories] = {
    "vit-b": {
        ("Meta", "fp32"): lambda: published(Meta(VIT_B)),
        ("transformers", "fp32"): transformers,
        **ours(sam_vit_b),
    },
    "mobile": {("authors", "fp32"): lambda: published(MobileSam(MOBILE_SAM)), **ours(mobile_sam)},
    "hiera-tiny": {("Meta", "fp32"): meta_2, **ours(hiera_tiny)},
    "nano": {("eager", "fp32"): plain_nano, **ours(nano)},
}
TURN_S = 1.0
COUNTS = (1, 16, 64, 1024)  # of prompts
ROUNDS_APART = 5
SIZES = {"vit-b": 1024, "mobile": 1024, "hiera-tiny": 1024, "nano": 512}


class Times:
    """CPU and wall seconds of one kind of work in one engine."""

    def __init__(self) -> None:
        self.cpu: list[float] = []
        self.wall: list[float] = []

    def of(self, work: Callable, count: int = 1, turn_s: float = 0.0):
        """Do some work, of so many pieces, again and again for so long; what it gave."""
        cpu, wall = time.process_time(), time.perf_counter()
        done = 0
        while not done or time.perf_counter() - wall < turn_s:
            result = work()
            done += count
        self.cpu.append((time.process_time() - cpu) / done)
        self.wall.append((time.perf_counter() - wall) / done)
        return result

    def scaled(self, share: float) -> "Times":
        """What a part of the work would have taken, or more of it."""
        times = Times()
        times.cpu, times.wall = ([share * t for t in own] for own in (self.cpu, self.wall))
        return times

    def beside(self, first: "Times") -> str:
        cpu, wall = median(self.cpu), median(self.wall)
        ratios = median(first.cpu) / cpu, median(first.wall) / wall
        return f"{cpu:9.4f}{ratios[0]:7.2f}{wall:9.4f}{ratios[1]:7.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", default=",".join(ENGINES), help="Names with commas between.")
    parser.add_argument("--engines", help="Names with commas between; all by default.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--memory", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.memory:
        model, *engine = arguments.memory
        print(peak_gb(ENGINES[model][tuple(engine)](), picture(model)))
        return
    print(f"{arguments.threads} threads, torch {torch.__version__}")
    print(f"{'':38}{'tile':>6}{'':26}{'prompt':>6}")
    print(
        f"{'model':11}{'engine':24}" + f"{'CPU s':>9}{'ratio':>7}{'wall s':>9}{'ratio':>7}" * 2,
        end="",
    )
    print(f"{'peak GB':>9}{'error':>9}{'IoU':>16}")
    for model in arguments.models.split(","):
        measure(model, arguments)


def measure(model: str, arguments: argparse.Namespace) -> None:
    """The rows of one model."""
    wanted = arguments.engines.split(",") if arguments.engines else None
    runners = {}
    for name, factory in ENGINES[model].items():
        if wanted is None or name[0] in wanted:
            try:
                runners[name] = factory()
            except (ModelError, Skipped) as error:
                print(f"{model} in {' '.join(name)} is left out: {error}")
    tile, size = picture(model), SIZES[model]
    places = np.random.default_rng(0).uniform(0, size, (arguments.prompts, 1, 2))
    clicks = [TilePrompt(xy.astype(np.float32), np.ones(1, np.int64)) for xy in places]
    encoding, decoding = ({name: Times() for name in runners} for _ in range(2))
    features, masks = {}, {}
    products = {"fp32": Times(), "bf16": Times()}
    for _ in range(arguments.rounds):
        for name, runner in runners.items():
            features[name] = encoding[name].of(partial(runner.encode, tile), turn_s=TURN_S)
        for precision in products:
            products[precision].of(partial(product, precision), turn_s=TURN_S)
        for name, runner in runners.items():
            work = partial(runner.decode, features[name], clicks)
            masks[name] = decoding[name].of(work, len(clicks))[0] > 0
    first = next(iter(runners))
    embeddings = {name: runners[name].embedding(features[name]) for name in runners}
    for name in runners:
        words = [sys.executable, "-m", "benchmarks.sam_speed", "--memory", model, *name]
        words += ["--threads", str(arguments.threads)]
        peak = float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
        iou = iou_of(masks[name], masks[first])
        print(
            f"{model:11}{' '.join(name):24}{encoding[name].beside(encoding[first])}"
            f"{decoding[name].beside(decoding[first])}{peak:9.2f}"
            f"{error_of(embeddings[name], embeddings[first]):9.0e}"
            f"{np.median(iou):9.4f} /{np.percentile(iou, 5):7.4f}",
            flush=True,
        )
    tell_products(model, tile, products, encoding[first])
    tell_costs(model, runners, features)


def tell_costs(model: str, runners: dict[tuple[str, str], Runner], features: dict) -> None:
    """The rows of what a prompt costs among more."""
    for name in [name for name in runners if name[0] == "torch"]:
        runner, label = runners[name], f"{model:11}{' '.join(name):24}"
        costs = (cost_among(count, runner, features[name], SIZES[model]) for count in COUNTS)
        print(label + ";  ".join(costs), flush=True)
        if isinstance(runner.model, Sam1Model):
            print(label + costs_apart(runner.model, features[name]), flush=True)


def tell_products(model: str, tile: np.ndarray, products: dict[str, Times], first: Times) -> None:
    """The rows of what an encoder's products alone would take."""
    with FlopCounterMode(display=False) as counter:
        ENGINES[model]["torch", "fp32"]().encode(tile)
    for precision, times in products.items():
        least = times.scaled(counter.get_total_flops() / product(precision))
        name = f"(products alone, {precision})"
        print(f"{model:11}{name:24}{least.beside(first)}")


def cost_among(count: int, runner: Runner, features: Any, size: int) -> str:
    """CPU milliseconds of one of so many clicks, the fewer ones repeated, and the memory on top."""
    places = np.random.default_rng(1).uniform(0, size, (count, 1, 2)).astype(np.float32)
    clicks = [TilePrompt(xy, np.ones(1, np.int64)) for xy in places]
    times = Times()

    def all_of() -> None:
        for start in range(0, count, 64):
            runner.decode(features, clicks[start : start + 64])

    Path("/proc/self/clear_refs").write_text("5")
    before = resident_gb("VmRSS")
    for _ in range(max(1, 64 // count)):
        times.of(all_of)
    peak = 1000 * (resident_gb("VmHWM") - before)
    return f"{count}: {1000 * median(times.cpu) / count:.1f} ms, {peak:.0f} MB"


@torch.inference_mode()
def costs_apart(model: Sam1Model, features: np.ndarray) -> str:
    """CPU milliseconds of what is done once an image, and of one of so many clicks beyond that."""
    network, decoder = model.network, model.network.mask_decoder
    embedding = torch.from_numpy(features)  # (1, C, h, w)
    image = network.prepare(embedding, model.code)
    counts = COUNTS[:-1]  # more of them are decoded in the same batches
    xy = np.random.default_rng(1).uniform(0, model.size, (max(counts), 1, 2)).astype(np.float32)
    clicks = [TilePrompt(point, np.ones(1, np.int64)) for point in xy]

    def decode(count: int) -> None:
        for chosen in batches(clicks, range(count), model.chunk):
            looked = network.look(embedding, image, stack([clicks[i] for i in chosen]))
            decoder.scores(looked.tokens, multimask=True)
            decoder.logits(*looked, multimask=True)

    once, lone, each = Times(), Times(), {count: Times() for count in counts}
    for _ in range(ROUNDS_APART):
        once.of(partial(network.prepare, embedding, model.code), turn_s=TURN_S / 4)
        lone.of(partial(network.prepare, embedding, model.code, lone=True), turn_s=TURN_S / 4)
        for count, times in each.items():
            times.of(partial(decode, count), count, turn_s=TURN_S)
    apart = (f"{count}: {1000 * median(times.cpu):.1f} ms" for count, times in each.items())
    return (
        f"once {1000 * median(once.cpu):.1f} ms, for a lone prompt {1000 * median(lone.cpu):.1f};  "
        "beyond it " + ";  ".join(apart)
    )


def product(precision: str) -> float:
    """The floating point operations of one large matrix product, which is made."""
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    a, b = torch.ones(4096, 768, dtype=kind), torch.ones(3072, 768, dtype=kind)
    for _ in range(10):
        torch.nn.functional.linear(a, b)
    return 10 * 2.0 * a.numel() * len(b)


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
