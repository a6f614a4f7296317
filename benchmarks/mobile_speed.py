"""What MobileSAM's image encoder costs, beside its authors' code with the same (random) weights.

    pip install mobilesam-mirror==1.0.0
    python -m benchmarks.mobile_speed [--threads 1] [--rounds 3]

One engine and the other by turns, in fp32, on a tile of 1024 px. Seconds are CPU time of the
process, which neighbours on a shared machine hardly distort, and the least wall time; the ratio is
of the medians of CPU time. The error is the largest difference, on embeddings whose spread is about
1.
"""

import argparse
from pathlib import Path

import torch

from benchmarks.sam_speed import compare
from geosam.model.config import MOBILE_SAM
from geosam.model.mobile_weights import build_mobile_sam
from tests.references import MobileSam, image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    theirs = MobileSam(MOBILE_SAM)
    ours = build_mobile_sam(theirs.weights, Path("mobile_sam.pt")).eval().requires_grad_(False)
    picture = image(size=1024)
    pixels = torch.from_numpy(picture).float()
    with torch.inference_mode():
        row = compare(
            "encode, a tile",
            1,
            arguments.rounds,
            lambda: (theirs.encode(picture),),
            lambda: (ours.encode(pixels).numpy(),),
        )
    print(f"{arguments.threads} threads, torch {torch.__version__}, fp32")
    print(f"{'':22}{'CPU s ref.':>12}{'geosam':>10}{'ratio':>8}{'wall s':>10}{'error':>10}")
    print(row)


if __name__ == "__main__":
    main()
