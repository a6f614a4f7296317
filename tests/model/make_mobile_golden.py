"""Writes mobile_golden.npz: what MobileSAM's own code gives with the seeded tiny weights.

Needs `pip install mobilesam-mirror==1.0.0`; run it as `python -m tests.model.make_mobile_golden`.
"""

from pathlib import Path

import numpy as np

from tests.references import KINDS, MobileSam, image, prompts


def main() -> None:
    mobile = MobileSam()
    embedding = mobile.encode(image())
    arrays = {"embedding": embedding}
    for kind in KINDS:
        for multimask in (True, False):
            logits, scores = mobile.decode(embedding, prompts(kind), multimask=multimask)
            arrays[f"{kind} {multimask} logits"] = logits[..., 1::4, 2::4]
            arrays[f"{kind} {multimask} scores"] = scores
    np.savez_compressed(Path(__file__).with_name("mobile_golden.npz"), **arrays)


if __name__ == "__main__":
    main()
