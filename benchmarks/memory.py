"""Peak memory and first-polygon time on a raster of 30,000 x 30,000 px, uint16, four bands.

    python benchmarks/memory.py FOLDER [--side 30000] [--prompts 100] [--model nano]

Writes the raster into FOLDER, block by block, unless it is there (about 300 MB): discs on patches,
some of them noisy, without overviews. Then, in processes of their own:

first    100 clicks; only the tiles under them are encoded
second   100 other clicks on the same tiles, the first of them alone

Memory is the process's high-water mark above what it took once the model was loaded; time counts
from there too. Linux only.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.windows import Window

PITCH, PATCH, BLOCK = 300, 1500, 512  # px: between discs, of a patch, of a block
PLACE = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
MOST_GB, MOST_S = 1.5, 1.0


def write_scene(
    path: Path, side: int, pitch: int = PITCH, smallest: int = 12, largest: int = 60
) -> None:
    """Discs in the middle of squares of a pitch, their radii between two, in strips; all in px."""
    random = np.random.default_rng(0)
    cells, patches = -(-side // pitch), -(-side // PATCH)
    radii = random.integers(smallest, largest, (cells, cells), np.int32)
    ground = random.integers(400, 900, (4, patches, patches), np.uint16)
    discs = random.integers(1200, 2000, (4, cells, cells), np.uint16)
    noise = random.integers(0, 32, (4, BLOCK, side), np.uint16)
    cols = np.arange(side)
    noisy = cols // PATCH % 6 == 0
    profile = {
        "driver": "GTiff", "count": 4, "height": side, "width": side, "dtype": "uint16",
        "crs": "EPSG:32633", "transform": PLACE, "tiled": True, "blockxsize": BLOCK,
        "blockysize": BLOCK, "compress": "zstd", "zstd_level": 1, "predictor": 2,
        "interleave": "pixel", "bigtiff": "yes",
    }  # fmt: skip
    draft = path.with_suffix(".part")
    with rasterio.open(draft, "w", **profile) as file:
        for top in range(0, side, BLOCK):
            rows = np.arange(top, min(top + BLOCK, side))
            dy, dx = rows % pitch - pitch // 2, cols % pitch - pitch // 2
            own = (rows // pitch)[:, None], cols // pitch
            inside = dy[:, None] ** 2 + dx**2 < radii[own] ** 2
            for band in range(4):
                under = ground[band][(rows // PATCH)[:, None], cols // PATCH]
                values = np.where(inside, discs[band][own], under)
                values += noise[band, : len(rows)] * noisy
                file.write(values, band + 1, window=Window(0, top, side, len(rows)))
    draft.rename(path)


def clicks(side: int, wanted: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Two pixels (x, y) in each of `wanted` discs, both on the same tiles at every scale."""
    from geosam.scene import ladder
    from tiles import Raster

    with Raster.open(scene) as raster:
        grids = ladder(raster, size)
    cells = side // PITCH
    first, second = [], []
    for number in np.linspace(0, cells * cells - 1, min(4 * wanted, cells * cells)).astype(int):
        row, col = divmod(int(number), cells)
        x, y = col * PITCH + PITCH // 2 + 0.5, row * PITCH + PITCH // 2 + 0.5
        other = x + 4, y - 3
        if all(grid.locate((x, y, x, y)) == grid.locate(other * 2) for grid in grids):
            first.append((x, y))
            second.append(other)
    chosen = np.linspace(0, len(first) - 1, wanted).astype(int)
    return np.array(first)[chosen], np.array(second)[chosen]


def rss() -> int:
    """Bytes of memory in use."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def session(which: str, side: int, wanted: int, model_name: str) -> None:
    """One session in this process; prints its figures as JSON."""
    from geosam import PromptSet, load_model, segment

    model = load_model(model_name)
    own_encode, encoded = model.encode, []

    def counting(images: np.ndarray) -> np.ndarray:
        encoded.append(len(images))
        return own_encode(images)

    model.encode = counting
    pixels = clicks(side, wanted, model.size)[which == "second"]
    points = np.column_stack(PLACE @ pixels.T)
    loaded, began = rss(), time.perf_counter()
    figures = {}
    if which == "second":
        alone = PromptSet.of(points=points[:1])
        segment(model, scene, alone, store=store)
        figures["first polygon s"] = round(time.perf_counter() - began, 3)
    polygons = segment(model, scene, PromptSet.of(points=points), store=store)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    figures |= {
        "seconds": round(time.perf_counter() - began, 1),
        "encoder calls": len(encoded),
        "tiles encoded": sum(encoded),
        "loaded GB": round(loaded / 1e9, 2),
        "peak above GB": round((peak - loaded) / 1e9, 2),
        "statuses": polygons["status"].value_counts().to_dict(),
    }
    print(json.dumps(figures))


def run(which: str) -> dict:
    """A session in a process of its own."""
    command = [sys.executable, *sys.argv, "--session", which]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    figures = json.loads(answer)
    print(f"{which:7}", "; ".join(f"{name} {value}" for name, value in figures.items()), flush=True)
    return figures


def main() -> None:
    if not scene.exists():
        began = time.perf_counter()
        write_scene(scene, options.side)
        print(f"written in {time.perf_counter() - began:.0f} s")
    print(f"{scene}: {scene.stat().st_size / 1e6:.0f} MB")
    shutil.rmtree(store, ignore_errors=True)
    first, second = run("first"), run("second")
    misses = [
        f"{name}: {value} (expected at most {most})"
        for name, value, most in (
            ("peak above the loaded model, GB", first["peak above GB"], MOST_GB),
            ("encoder calls of the second session", second["encoder calls"], 0),
            ("first polygon, s", second["first polygon s"], MOST_S),
        )
        if value > most
    ]
    print("\n".join(misses) or "all bars held")
    sys.exit(1 if misses else 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the raster and its features go")
    parser.add_argument("--side", type=int, default=30_000, help="of the raster, px")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--model", default="nano", help="a model's name or a weights file")
    parser.add_argument("--session", choices=["first", "second"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    scene = options.folder / f"scene_{options.side}.tif"
    store = options.folder / f"scene_{options.side}.zarr"
    if options.session:
        session(options.session, options.side, options.prompts, options.model)
    else:
        options.folder.mkdir(parents=True, exist_ok=True)
        main()
