"""How much of a mask the lower precision changes, on real images.

    python benchmarks/precision.py DATA [--objects 40] [--backend openvino]

DATA is a folder of labelled scenes, as for `accuracy.py`. Objects are drawn at random, each with a
tile round it; its box and a click inside are decoded by a model in fp32 and by one in bf16. IoU of
the two masks, by class: median / 5th percentile; and the share of clicks for which both choose the
same of three masks.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from accuracy import SMALLEST_PX
from drawings import innermost

from geosam import load_model
from geosam.protocol import FILL, TilePrompt
from geosam.training.scenes import read_scenes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--objects", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    models = [
        load_model(arguments.model, device="cpu", precision=precision, backend=backend)
        for precision, backend in (("fp32", "torch"), ("bf16", arguments.backend))
    ]
    print(f"{models[1].id} beside {models[0].id}: IoU of the masks, median / 5th percentile")
    print(f"{'':12}{'objects':>8}{'box':>18}{'click':>18}{'same choice':>12}")
    rng = np.random.default_rng(0)
    scenes = read_scenes(arguments.data)
    for kind in sorted({scene.kind for scene in scenes}):
        candidates = [
            (scene.pyramid[0], box, mask)
            for scene in scenes
            if scene.kind == kind
            for box, number in zip(scene.boxes, scene.ids, strict=True)
            for mask in [scene.labels[box[1] : box[3], box[0] : box[2]] == number]
            if mask.sum() >= SMALLEST_PX and max(mask.shape) < models[0].size // 2
        ]
        count = min(arguments.objects, len(candidates))
        boxes, clicks, same = [], [], []
        for i in rng.choice(len(candidates), count, replace=False):
            tile, box, click = cut(*candidates[i], models[0].size)
            exact, light = (
                (model.decode(features, [box], multimask=False),
                 model.decode(features, [click], multimask=True))
                for model in models
                for features in [model.encode(tile[None])[0]]
            )  # fmt: skip
            boxes.append(iou(exact[0][0][0, 0], light[0][0][0, 0]))
            best = [int(scores[0].argmax()) for _, scores in (exact[1], light[1])]
            same.append(best[0] == best[1])
            clicks.append(iou(exact[1][0][0, best[0]], light[1][0][0, best[1]]))
        figures = "".join(
            f"{np.median(v):11.4f} /{np.percentile(v, 5):.3f}" for v in (boxes, clicks)
        )
        print(f"{kind:12}{count:8}{figures}{np.mean(same):12.3f}", flush=True)


def cut(
    image: np.ndarray, extent: np.ndarray, mask: np.ndarray, size: int
) -> tuple[np.ndarray, TilePrompt, TilePrompt]:
    """A tile (3, size, size) with an object in it, and the object's box and click on it."""
    xmin, ymin, xmax, ymax = extent
    left, top = (xmin + xmax - size) // 2, (ymin + ymax - size) // 2
    left = max(0, min(left, image.shape[1] - size))
    top = max(0, min(top, image.shape[0] - size))
    tile = np.empty((3, size, size), np.uint8)
    tile[:] = np.array(FILL, np.uint8)[:, None, None]
    part = image[top : top + size, left : left + size]
    tile[:, : part.shape[0], : part.shape[1]] = np.moveaxis(part, 2, 0)
    corner = np.float32([left, top]) + np.float32(0.5)  # pixel centres are at whole numbers
    none, no_labels = np.zeros((0, 2), np.float32), np.zeros(0, np.int64)
    box = np.float32([xmin, ymin, xmax, ymax]) - np.tile(corner, 2)
    click = np.float32([innermost(np.pad(mask, 1))]) - 1 + np.float32([xmin, ymin]) - corner
    return tile, TilePrompt(none, no_labels, box), TilePrompt(click, np.ones(1, np.int64))


def iou(one: np.ndarray, two: np.ndarray) -> float:
    """IoU of two masks given as logits; that of two empty ones is 1."""
    either = ((one > 0) | (two > 0)).sum()
    return float(((one > 0) & (two > 0)).sum() / either) if either else 1.0


if __name__ == "__main__":
    main()
