"""Writes sam1_golden.npz: what Meta's segment-anything 1.0 gives with the seeded tiny weights.

Needs `pip install segment-anything==1.0`; run it as `python -m tests.model.make_sam1_golden`.
"""

from pathlib import Path

import numpy as np

from tests.references import KINDS, Meta, image, prompts


def main() -> None:
    meta = Meta()
    embedding = meta.encode(image())
    arrays = {"embedding": embedding}
    for kind in KINDS:
        for multimask in (True, False):
            logits, scores = meta.decode(embedding, prompts(kind), multimask=multimask)
            arrays[f"{kind} {multimask} logits"] = logits[..., 1::3, 2::3]
            arrays[f"{kind} {multimask} scores"] = scores
    np.savez_compressed(Path(__file__).with_name("sam1_golden.npz"), **arrays)


if __name__ == "__main__":
    main()
