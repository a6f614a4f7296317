"""Writes sam2_golden.npz: what the package sam2 1.1.0 gives with the seeded tiny weights.

Needs `SAM2_BUILD_CUDA=0 pip install --no-build-isolation --no-deps sam2==1.1.0`; run it as
`python -m tests.model.make_sam2_golden`.
"""

from pathlib import Path

import numpy as np
import torch

from geosam.model.image_encoder import Features
from geosam.model.sam import pack
from tests.references import KINDS, image, prompts
from tests.references_sam2 import Meta2


def main() -> None:
    meta = Meta2()
    features = meta.encode(image())
    packed = pack(Features(*(torch.from_numpy(part) for part in features)))
    arrays = {"features": packed.numpy()}
    for kind in KINDS:
        for multimask in (True, False):
            logits, scores = meta.decode(features, prompts(kind), multimask=multimask)
            arrays[f"{kind} {multimask} logits"] = logits[..., 1::3, 2::3]
            arrays[f"{kind} {multimask} scores"] = scores
    np.savez_compressed(Path(__file__).with_name("sam2_golden.npz"), **arrays)


if __name__ == "__main__":
    main()
