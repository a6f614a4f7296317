"""A model on labelled images, by class, beside classical tools on prompts simulated alike.

    python benchmarks/accuracy.py DATA [--model nano] [--limit 100] [--json FILE] [--picture FILE]

DATA holds one folder a class with `NAME.webp` and `NAME.instances.png` (uint16, 0 = unlabelled) or
`NAME.tif` with footprints in `NAME.gpkg`. The images become GeoTIFFs and the labels polygons along
the pixels' edges, of at least 30 px; then `geosam.evaluate` does the rest.
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
from PIL import Image
from rasterio.features import shapes
from shapely.geometry import shape

import geosam
from geosam.evaluation.report import summarize, table
from geosam.evaluation.sheet import draw_sheet

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--classes", default="buildings,fields,water,trees")
    parser.add_argument("--limit", type=int, help="objects a class, drawn at random")
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
    if arguments.json:
        arguments.json.write_text(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()
