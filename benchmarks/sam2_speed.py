"""What SAM 2.1 Hiera costs, beside Meta's sam2 1.1.0 with the same (random) weights.

    SAM2_BUILD_CUDA=0 pip install --no-build-isolation --no-deps sam2==1.1.0
    python -m benchmarks.sam2_speed [--model tiny] [--threads 1] [--rounds 3] [--prompts 16]

One engine and the other by turns, in fp32; read the table as that of `benchmarks.sam_speed`. The
last lines say what half precision, in which features are stored, does to masks.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from benchmarks.sam_speed import compare
from geosam.model.config import HIERA_BASE_PLUS, HIERA_LARGE, HIERA_SMALL, HIERA_TINY
from geosam.model.sam import unpack
from geosam.model.sam2_runtime import Sam2Model
from geosam.model.sam2_weights import build_sam2
from geosam.protocol import TilePrompt
from tests.references import image
from tests.references_sam2 import Meta2, arrays

CONFIGS = {
    "tiny": HIERA_TINY, "small": HIERA_SMALL, "base-plus": HIERA_BASE_PLUS, "large": HIERA_LARGE,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=CONFIGS, default="tiny")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=16)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config, picture = CONFIGS[arguments.model], image(size=1024)
    theirs = Meta2(config)
    ours = Sam2Model(build_sam2(theirs.weights, Path("hiera.pt")), "hiera")
    places = np.random.default_rng(0).uniform(0, 1024, (arguments.prompts, 1, 2))
    clicks = [TilePrompt(xy.astype(np.float32), np.ones(1, np.int64)) for xy in places]
    features = ours.encode(picture)[0]
    kept = arrays(unpack(torch.from_numpy(features)[None].float(), config))
    with torch.inference_mode():
        rows = [
            compare("encode, a tile", 1, arguments.rounds,
                    lambda: theirs.encode(picture),
                    lambda: arrays(ours.network.encode(torch.from_numpy(picture).float()))),
            compare(f"decode, one of {len(clicks)}", len(clicks), arguments.rounds,
                    lambda: theirs.decode(kept, clicks, multimask=True),
                    lambda: ours.decode(features, clicks, multimask=True)),
        ]  # fmt: skip
    print(f"Hiera {arguments.model}, {arguments.threads} threads, torch {torch.__version__}, fp32")
    print(f"{'':22}{'CPU s Meta':>12}{'geosam':>10}{'ratio':>8}{'wall s':>10}{'error':>10}")
    for row in rows:
        print(row)
    exact = theirs.decode(theirs.encode(picture), clicks, multimask=True)
    light = ours.decode(features, clicks, multimask=True)
    one, two = exact[0] > 0, light[0] > 0
    ious = (one & two).sum((-1, -2)) / (one | two).sum((-1, -2))
    print(
        f"features at most {np.abs(features).max():.0f}; in half precision logits (spread "
        f"{exact[0].std():.2f}) move by {np.abs(exact[0] - light[0]).max():.1e}, scores by "
        f"{np.abs(exact[1] - light[1]).max():.1e}, mask IoU is at least {ious.min():.4f}"
    )


if __name__ == "__main__":
    main()
