"""What encoding and decoding cost, beside GrabCut on the same boxes.

    python benchmarks/decode_speed.py [--model nano] [--threads 2]

Median seconds over interleaved rounds, on the demo's image enlarged to one tile: encoding the tiles
of a 1024 x 1024 px area, decoding 1 and 64 boxes and 1 and 64 clicks on one tile, GrabCut for one
box (5 rounds in a crop twice the box). Run it on an idle machine.
"""

import argparse
import time
from importlib.resources import files
from statistics import median

import cv2
import numpy as np
import rasterio
import torch

import geosam
from geosam.protocol import TilePrompt
from tiles import TileGrid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="nano")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(arguments.threads)
    model = geosam.load_model(arguments.model)
    size = model.size
    with rasterio.open(files("geosam") / "demo/OSBS_029.tif") as source:
        image = source.read(out_shape=(3, size, size))
    tiles = len(TileGrid((1024, 1024), size, 128))
    images = np.stack([image] * tiles)
    features = model.encode(images[:1])[0]
    rng = np.random.default_rng(0)
    centres = rng.uniform(0.15 * size, 0.85 * size, (64, 2)).astype(np.float32)
    halves = rng.uniform(0.03 * size, 0.08 * size, (64, 2)).astype(np.float32)
    none, no_labels = np.zeros((0, 2), np.float32), np.zeros(0, np.int64)
    boxes = [
        TilePrompt(none, no_labels, np.concatenate([c - h, c + h]))
        for c, h in zip(centres, halves, strict=True)
    ]
    clicks = [TilePrompt(c[None], np.ones(1, np.int64)) for c in centres]
    pixels = np.ascontiguousarray(np.moveaxis(image, 0, 2))

    def grabcut() -> None:
        (x, y), (w, h) = (centres[0] - 2 * halves[0]).astype(int), (4 * halves[0]).astype(int)
        crop = np.ascontiguousarray(pixels[max(y, 0) : y + h, max(x, 0) : x + w])
        inner = (int(w) // 4, int(h) // 4, int(w) // 2, int(h) // 2)
        state = np.zeros((1, 65)), np.zeros((1, 65))
        mask = np.zeros(crop.shape[:2], np.uint8)
        cv2.grabCut(crop, mask, inner, *state, 5, cv2.GC_INIT_WITH_RECT)

    work = {
        f"encode 1024 x 1024 px ({tiles} tiles)": lambda: model.encode(images),
        "decode 1 box": lambda: model.decode(features, boxes[:1], multimask=False),
        "decode 64 boxes": lambda: model.decode(features, boxes, multimask=False),
        "decode 1 click": lambda: model.decode(features, clicks[:1], multimask=True),
        "decode 64 clicks": lambda: model.decode(features, clicks, multimask=True),
        "GrabCut, 1 box": grabcut,
    }
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(arguments.rounds):
        for name, act in work.items():
            began = time.perf_counter()
            act()
            times[name].append(time.perf_counter() - began)
    print(f"{model.id}, {arguments.threads} threads, median of {arguments.rounds} rounds")
    for name, seconds in times.items():
        print(f"{name:34} {1000 * median(seconds):9.1f} ms")
    for kind, plural in (("box", "boxes"), ("click", "clicks")):
        ratio = median(times[f"decode 64 {plural}"]) / median(times[f"decode 1 {kind}"])
        print(f"64 {plural} cost {ratio:.1f} times as much as one")


if __name__ == "__main__":
    main()
