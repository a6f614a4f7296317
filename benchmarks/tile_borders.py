"""A picture of polygons with the borders of the tiles that they were found in, to look for seams.

    python benchmarks/tile_borders.py RASTER POLYGONS PICTURE.png [--scale 1] [--size 512]

The cores of the tiles at one scale are dashed; objects should take no notice of them. --size is the
side of the model's image: 512 for nano, 1024 for SAM.
"""

import argparse

import geopandas
import numpy as np

import geosam
from geosam.scene import ladder
from tiles import Raster


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("raster")
    parser.add_argument("polygons")
    parser.add_argument("picture")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--size", type=int, default=512)
    arguments = parser.parse_args()
    with Raster.open(arguments.raster) as raster:
        frame, grids = raster.frame, ladder(raster, arguments.size)
    grid = next(g for g in grids if g.scale == arguments.scale)
    corners = [((c.col, c.bottom), (c.right, c.row)) for c in (tile.core for tile in grid)]
    places = frame.to_world(np.reshape(corners, (-1, 2))).reshape(-1, 2, 2)
    boxes = [(*place.min(0).tolist(), *place.max(0).tolist()) for place in places]
    polygons = geopandas.read_file(arguments.polygons)
    prompts = geosam.PromptSet.of(boxes=boxes, crs=frame.crs)
    geosam.preview(arguments.raster, polygons, arguments.picture, prompts=prompts)


if __name__ == "__main__":
    main()
