"""Runs every raster of a folder through `geosam info`, `encode` and `segment`: one line a file.

    python benchmarks/awkward_rasters.py DATA_DIR [--model nano]

Each raster is encoded at the scales where that takes few tiles, and segmented with a click at its
centre. A raster may be refused, in words: that is a line as well. Exits with 1 if anything ended
in an error that geosam did not foresee.
"""

import argparse
import json
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner, Result

from geosam.cli import main as geosam
from tiles import Frame, Raster, Window

SUFFIXES = {".tif", ".tiff", ".vrt", ".jp2", ".img", ".png"}
MOST_TILES = 16


@dataclass(frozen=True)
class Outcome:
    """How one raster fared: what to print, and whether geosam foresaw it."""

    text: str
    foreseen: bool = True


def run(*arguments: object) -> Result:
    return CliRunner().invoke(geosam, [str(argument) for argument in arguments])


def failure(command: str, result: Result) -> Outcome:
    """What a command that did not end well said."""
    if isinstance(result.exception, SystemExit):
        return Outcome(f"{command}: {result.stderr.strip()}")
    traceback.print_exception(result.exception)
    return Outcome(f"{command}: UNFORESEEN {result.exception!r}", foreseen=False)


def centre(frame: Frame) -> tuple[float, float]:
    """The middle of the pixel in the middle, in the raster's CRS."""
    height, width = frame.shape
    x, y = frame.to_world([[width // 2 + 0.5, height // 2 + 0.5]])[0]
    return float(x), float(y)


def try_raster(path: Path, model: str, folder: Path) -> Outcome:
    own = ("--model", model)
    info = run("info", path, *own, "--json")
    if info.exit_code:
        return failure("info", info)
    about = json.loads(info.stdout)
    width, height = about["size_px"]
    said = [f"{width} x {height} x {about['bands']} {about['type']}"]
    scales = [scale for scale, count in about["tiles_by_scale"].items() if count <= MOST_TILES]
    store = folder / "features.zarr"
    encode = run("encode", path, "-o", store, "--scales", ",".join(scales), *own, "--json")
    if encode.exit_code:
        return failure("encode", encode)
    said.append(f"scale: tiles {json.loads(encode.stdout)['tiles']}")
    with Raster.open(path) as raster:
        x, y = centre(raster.frame)
        pixel_m2 = raster.frame.pixel_size_m[0] * raster.frame.pixel_size_m[1]
        height, width = raster.frame.shape
        has_data = raster.read(Window(width // 2, height // 2, 1, 1)).valid.all()
    segment = run("segment", path, "--store", store, "--point", x, y, *own)
    if segment.exit_code:
        return failure("segment", segment)
    (feature,) = json.loads(segment.stdout)["features"]
    found = feature["properties"]
    area = found["area_m2"] or 0.0
    size = f"{area:.6g} m2 = {area / pixel_m2:.0f} px at {found['tile']}"
    said.append(f"{found['status']}, {size}{'' if has_data else ', where there is no data'}")
    return Outcome("; ".join(said))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, metavar="DATA_DIR", help="folder of rasters")
    parser.add_argument("--model", default="nano", help="a model's name or a weights file")
    options = parser.parse_args()
    rasters = sorted(p for p in options.data.iterdir() if p.suffix.lower() in SUFFIXES)
    outcomes = []
    for path in rasters:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            outcome = try_raster(path, options.model, Path(folder))
        outcomes.append(outcome)
        print(f"{path.name}  {time.perf_counter() - began:.1f} s  {outcome.text}", flush=True)
    unforeseen = sum(not outcome.foreseen for outcome in outcomes)
    print(f"{len(rasters)} rasters, {unforeseen} unforeseen errors")
    sys.exit(1 if unforeseen or not rasters else 0)


if __name__ == "__main__":
    main()
