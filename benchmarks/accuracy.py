"""A model on labelled images, by class, beside classical tools on prompts simulated alike.

    python benchmarks/accuracy.py DATA [--model nano] [--limit 100] [--peers] [--json FILE]
        [--picture FILE]

DATA holds one folder a class with `NAME.webp` and `NAME.instances.png` (uint16, 0 = unlabelled) or
`NAME.tif` with footprints in `NAME.gpkg`. The images become GeoTIFFs and the labels polygons along
the pixels' edges, of at least 30 px; then `geosam.evaluate` does the rest. With `--peers`, GrabCut
answers the boxes and three other tools the clicks, on the same objects (see `peers.py`).
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import geopandas
import numpy as np
import rasterio
from affine import Affine
from peers import CLICK_TOOLS, Peer
from PIL import Image
from rasterio.features import shapes
from shapely.geometry import shape

import geosam
from geosam.evaluation.report import figures_of, summarize, table
from geosam.evaluation.sheet import draw_sheet
from geosam.evaluation.trials import Evaluation, Trial, try_boxes, try_clicks
from tiles import Raster

SMALLEST_PX = 30
GSD_M = {"buildings": 0.07, "fields": 2.0, "water": 5.0, "trees": 0.6}
CRS = "EPSG:32633"


def pairs_of(data: Path, kind: str, folder: Path) -> list[geosam.Pair]:
    """The labelled images of a class as GeoTIFFs with polygons."""
    pairs = []
    for path in sorted((data / kind).glob("*.tif")):
        link = folder / path.name  # features are kept beside it
        link.symlink_to(path.absolute())
        footprints = geopandas.read_file(path.with_suffix(".gpkg"))
        pairs.append(geosam.Pair(link, footprints, kind))
    for path in sorted((data / kind).glob("*.instances.png")):
        name = path.name.removesuffix(".instances.png")
        image = np.array(Image.open(path.with_name(f"{name}.webp")).convert("RGB"))
        labels = np.array(Image.open(path)).astype(np.int32)
        gsd = GSD_M.get(kind, 1.0)
        profile = {
            "driver": "GTiff", "count": 3, "height": image.shape[0], "width": image.shape[1],
            "dtype": "uint8", "crs": CRS, "transform": Affine(gsd, 0, 500_000, 0, -gsd, 5_000_000),
        }  # fmt: skip
        with rasterio.open(folder / f"{name}.tif", "w", **profile) as file:
            file.write(np.moveaxis(image, 2, 0))
        traced = shapes(labels, labels > 0, transform=profile["transform"])
        parts = [{"geometry": shape(ring), "label": int(label)} for ring, label in traced]
        if not parts:
            continue
        objects = geopandas.GeoDataFrame(parts, crs=CRS).dissolve("label").reset_index()
        large = objects[objects.area >= SMALLEST_PX * gsd**2]
        pairs.append(geosam.Pair(folder / f"{name}.tif", large, kind))
    return pairs


def peer_trials(evaluation: Evaluation) -> dict[str, list[Trial]]:
    """What each classical tool makes of the objects that were measured."""
    tools = {"GrabCut": None, **CLICK_TOOLS}
    found: dict[str, list[Trial]] = {name: [] for name in tools}
    for position, pair in enumerate(evaluation.pairs):
        truths = [trial.truth for trial in evaluation.trials if trial.truth.pair == position]
        if not truths:
            continue
        with Raster.open(pair.raster) as raster:
            chip = raster.read(raster.window, (1, 2, 3))
        image = np.ascontiguousarray(np.moveaxis(chip.data, 0, 2))
        for name, tool in tools.items():
            trials = [Trial(truth) for truth in truths]
            attempt = try_boxes if tool is None else try_clicks
            attempt(trials, chip.frame, Peer(image, chip.frame, truths[0].kind, tool))
            found[name] += trials
    return found


def compare(evaluation: Evaluation, peers: dict[str, list[Trial]]) -> list[dict[str, object]]:
    """One row a class and tool: the measures that all of them have."""
    rows = []
    for kind in dict.fromkeys(trial.truth.kind for trial in evaluation.trials):
        for name, trials in {evaluation.model: evaluation.trials, **peers}.items():
            own = [trial for trial in trials if trial.truth.kind == kind]
            figures = {n: float(v.mean()) for n, v in figures_of(own).items()}
            if name in peers:
                figures.pop("iou_best_of_three", None)  # they give one answer
            rows.append({"class": kind, "tool": name, "objects": len(own), **figures})
    return rows


def comparison_table(rows: list[dict[str, object]]) -> str:
    titles = {
        "iou_box": "box", "iou_click_1": "1 click", "iou_click_2": "2", "iou_click_3": "3",
        "iou_click_5": "5", "iou_best_of_three": "best of 3", "noc_80": "NoC80",
        "noc_85": "NoC85",
    }  # fmt: skip
    lines = [f"{'class':10} {'tool':16} {'n':>4} " + " ".join(f"{t:>9}" for t in titles.values())]
    for row in rows:
        cells = " ".join(f"{row[n]:9.3f}" if n in row else " " * 9 for n in titles)
        lines.append(f"{row['class']:10} {row['tool']:16} {row['objects']:4} {cells}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--classes", default="buildings,fields,water,trees")
    parser.add_argument("--limit", type=int, help="objects a class, drawn at random")
    parser.add_argument("--peers", action="store_true", help="classical tools too; takes minutes")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path, help="worst, middling and best cases")
    arguments = parser.parse_args()
    model = geosam.load_model(arguments.model)
    with tempfile.TemporaryDirectory() as name:
        pairs = [
            pair
            for kind in arguments.classes.split(",")
            for pair in pairs_of(arguments.data, kind, Path(name))
        ]
        evaluation = geosam.evaluate(model, pairs, limit=arguments.limit)
        if arguments.picture:
            draw_sheet(evaluation, arguments.picture)
        summary = summarize(evaluation)
        print(table(summary))
        sys.stdout.flush()
        if arguments.peers:
            summary["comparison"] = compare(evaluation, peer_trials(evaluation))
            print(comparison_table(summary["comparison"]))
    if arguments.json:
        arguments.json.write_text(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()
