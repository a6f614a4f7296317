"""What SAM ViT-B costs, beside Meta's segment-anything 1.0 with the same (random) weights.

    pip install segment-anything==1.0
    python -m benchmarks.sam_speed [--threads 1] [--rounds 3] [--prompts 64]

One engine and the other by turns, in fp32. Seconds are CPU time of the process, which neighbours on
a shared machine hardly distort, and the least wall time; the ratio is of the medians of CPU time.
Peak memory is what encoding one tile takes above the weights, in a process of its own (Linux). The
error is the largest difference to Meta's result, on logits and embeddings whose spread is about 1.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch

from geosam.model.config import VIT_B
from geosam.model.sam1_runtime import Sam1Model
from geosam.model.sam1_weights import build_sam1
from geosam.protocol import TilePrompt
from tests.references import Meta, image
from tests.seeded import official

ENGINES = ("Meta", "geosam")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--memory", choices=ENGINES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    picture = image(size=1024)
    if arguments.memory:
        encode = encoder(arguments.memory)
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
        before = resident_gb("VmRSS")
        encode(picture)
        print(resident_gb("VmHWM") - before)
        return
    theirs, ours = Meta(VIT_B), geosam_model()
    places = np.random.default_rng(0).uniform(0, 1024, (arguments.prompts, 1, 2))
    clicks = [TilePrompt(xy.astype(np.float32), np.ones(1, np.int64)) for xy in places]
    features = ours.encode(picture)[0]
    embedding = features[None].astype(np.float32)
    with torch.inference_mode():
        rows = [
            compare("encode, a tile", 1, arguments.rounds,
                    lambda: (theirs.encode(picture),),
                    lambda: (ours.network.encode(torch.from_numpy(picture).float()).numpy(),)),
            compare(f"decode, one of {len(clicks)}", len(clicks), arguments.rounds,
                    lambda: theirs.decode(embedding, clicks, multimask=True),
                    lambda: ours.decode(features, clicks, multimask=True)),
            compare("decode, a lone one", 1, arguments.rounds,
                    lambda: theirs.decode(embedding, clicks[:1], multimask=True),
                    lambda: ours.decode(features, clicks[:1], multimask=True)),
        ]  # fmt: skip
        scores_alone = timed(lambda: ours.decode(features, clicks, multimask=True, min_score=2.0))
    print(f"{arguments.threads} threads, torch {torch.__version__}, fp32")
    print(f"{'':22}{'CPU s Meta':>12}{'geosam':>10}{'ratio':>8}{'wall s':>10}{'error':>10}")
    for row in rows:
        print(row)
    print(f"{'scores alone, a prompt':22}{'':12}{scores_alone[0] / len(clicks):10.4f}")
    peaks = {engine: peak_gb(engine, arguments.threads) for engine in ENGINES}
    print(
        "peak memory of encode, GB: " + ", ".join(f"{name} {gb:.2f}" for name, gb in peaks.items())
    )


def resident_gb(what: str) -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{what}:")[1].split()[0]) / 1e6


def geosam_model() -> Sam1Model:
    return Sam1Model(build_sam1(official(VIT_B), Path("vit_b.pth")), "vit-b")


def encoder(engine: str) -> Callable[[np.ndarray], np.ndarray]:
    return Meta(VIT_B).encode if engine == "Meta" else geosam_model().encode


def compare(name: str, count: int, rounds: int, theirs: Callable, ours: Callable) -> str:
    """One row of the table: engines by turns, times divided by `count`."""
    times: tuple[list, list] = ([], [])
    for _ in range(rounds):
        results = []
        for engine, own in zip((theirs, ours), times, strict=True):
            cpu, wall, result = timed(engine)
            own.append((cpu / count, wall / count))
            results.append(result)
    error = max(np.abs(a - b).max() for a, b in zip(*results, strict=True) if a.ndim == 4)
    meta, geosam = (median(cpu for cpu, _ in own) for own in times)
    wall = min(wall for _, wall in times[1])
    return f"{name:22}{meta:12.4f}{geosam:10.4f}{meta / geosam:8.2f}{wall:10.4f}{error:10.1e}"


def timed(work: Callable) -> tuple[float, float, tuple]:
    cpu, wall = time.process_time(), time.perf_counter()
    result = work()
    return time.process_time() - cpu, time.perf_counter() - wall, result


def peak_gb(engine: str, threads: int) -> float:
    words = [sys.executable, "-m", "benchmarks.sam_speed", "--memory", engine]
    words += ["--threads", str(threads)]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
