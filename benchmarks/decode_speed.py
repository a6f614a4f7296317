"""What encoding, decoding and hovering cost, beside GrabCut on the same boxes.

    python benchmarks/decode_speed.py [--model nano] [--threads 2] [--keep FILE] [--before FILE]

Median milliseconds over interleaved rounds, on the demo's image enlarged to one tile: encoding the
tiles of a 1024 x 1024 px area, decoding 1 and 64 boxes and 1 and 64 clicks on one tile, GrabCut for
one box (5 rounds in a crop twice the box). Then what the server takes for the outline under a mouse
that strolls over the image, 1600 x 1600 px, when its tiles are stored and read. `--keep` writes
those outlines as GeoJSON lines; `--before` reads such a file of another version and prints how far
the outlines have moved. Run it on an idle machine.
"""

import argparse
import io
import json
import math
import tempfile
import time
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import rasterio
import shapely
import torch
from affine import Affine
from rasterio.enums import Resampling

import geosam
from geosam.protocol import Model, TilePrompt
from geosam.serve.operations import Operations, perform
from geosam.serve.session import Session
from geosam.serve.tasks import Task
from geosam.serve.wire import Wire
from tiles import TileGrid

TIMES, STEPS = 4, 200  # the image's enlargement, and the stroll's length


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="nano")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--keep", type=Path, help="write the outlines of hovering")
    parser.add_argument("--before", type=Path, help="compare them with those of another version")
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
    outlines = hover(model)
    if arguments.keep:
        arguments.keep.write_text("".join(f"{json.dumps(outline)}\n" for outline in outlines))
    if arguments.before:
        before = [json.loads(line) for line in arguments.before.read_text().splitlines()]
        ious = [iou(*pair) for pair in zip(before, outlines, strict=True)]
        print(f"outlines before and now: IoU {median(ious):.6f}, worst {min(ious):.6f}")


def hover(model: Model) -> list[Any]:
    """Print what an outline under the mouse costs; the outlines, as GeoJSON."""
    operations = Operations(Session(lambda *_: model))
    wire = Wire(io.BytesIO(), io.BytesIO())

    def ask(op: str, **given: Any) -> dict[str, Any]:
        return perform(operations, Task(0, op, given, wire))

    with tempfile.TemporaryDirectory() as folder:
        scene = ask("open", raster=enlarged(Path(folder) / "aerial.tif"))
        xmin, ymin, xmax, ymax = scene["bounds"]
        ask("encode", scene=scene["scene"])
        outlines, wall, processor = [], [], []
        for number in range(2 * STEPS):  # the first round encodes and reads what it needs
            step = number % STEPS / STEPS
            x = xmin + (xmax - xmin) * (0.05 + 0.9 * step)
            y = (ymin + ymax) / 2 + (ymax - ymin) * 0.3 * math.sin(15 * step)
            prompt = {"id": "hover", "points": [[x, y]]}
            began, began_cpu = time.perf_counter(), time.process_time()
            answer = ask("preview", scene=scene["scene"], prompt=prompt)
            if number >= STEPS:
                wall.append(time.perf_counter() - began)
                processor.append(time.process_time() - began_cpu)
                outlines.append(answer["polygons"][0]["geometry"])
    for name, seconds in (("hovering, wall", wall), ("hovering, processor", processor)):
        most = np.percentile(seconds, 95)
        print(f"{name:34} {1000 * median(seconds):9.1f} ms, 95 %: {1000 * most:.1f} ms")
    return outlines


def enlarged(path: Path) -> str:
    """The demo's image with finer pixels, in a file."""
    with rasterio.open(files("geosam") / "demo/OSBS_029.tif") as source:
        height, width = source.height * TIMES, source.width * TIMES
        image = source.read(out_shape=(3, height, width), resampling=Resampling.cubic)
        profile = source.profile | {
            "height": height, "width": width,
            "transform": source.transform * Affine.scale(1 / TIMES),
        }  # fmt: skip
    with rasterio.open(path, "w", **profile) as target:
        target.write(image)
    return str(path)


def iou(one: Any, two: Any) -> float:
    """Of two outlines in GeoJSON; 1 if neither is there."""
    if one is None or two is None:
        return float(one is two)
    a, b = (shapely.geometry.shape(outline) for outline in (one, two))
    return float(a.intersection(b).area / a.union(b).area)


if __name__ == "__main__":
    main()
