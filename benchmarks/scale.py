"""Time, peak memory and disk of every verb as a raster grows, beside what `info` foretold.

    python benchmarks/scale.py FOLDER [--sides 2048,8192,32768] [--density 8] [--picture P.png]

Square rasters of these sides (uint16, four bands, no overviews) are written into FOLDER, unless
they are there: discs of radius 16 to 22 px on a pitch of 50 px, so the largest holds 430,000. Each
verb is a command of its own, as a user would give it, with nano on the CPU:

info        what it foretells of `encode`, and with `--density 32` of `everything`
encode      all tiles at scale 1 and coarser
segment     one click a million pixels, on the encoded features
everything  the lattice is thin by default, because a full one would take hours at the last size
coverage    `everything --coverage`, up to --cover px a side

A row of figures goes to FOLDER/scale.jsonl when it is known, and is not measured again. The picture
needs matplotlib.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import geopandas
import numpy as np
from memory import PLACE, write_scene

from geosam.automatic.run import DENSITY

PITCH, SMALLEST, LARGEST = 50, 16, 22  # px
PX_A_CLICK = 1_000_000
VERBS = ("encode", "segment", "everything", "coverage")


def measured(*words: object) -> dict:
    """Seconds, processor seconds and peak memory of a geosam command, and its standard output."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "geosam", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    output = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: ended with {os.waitstatus_to_exitcode(status)}")
    return {
        "s": round(time.perf_counter() - began, 1),
        "cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "peak_gb": round(used.ru_maxrss / 1e6, 3),
        "output": output,
    }


def megabytes(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def clicks(path: Path, side: int) -> int:
    """One click in the middle of a disc for each million pixels, as a file."""
    cells = side // PITCH
    chosen = np.linspace(0, cells**2 - 1, max(1, side**2 // PX_A_CLICK)).astype(int)
    rows, cols = np.divmod(chosen, cells)
    xs, ys = PLACE @ (cols * PITCH + PITCH // 2 + 0.5, rows * PITCH + PITCH // 2 + 0.5)
    points = geopandas.points_from_xy(xs, ys)
    geopandas.GeoDataFrame(geometry=points, crs="EPSG:32633").to_file(path)
    return len(chosen)


def rows_of(side: int, folder: Path, density: int, cover: int, known: set[tuple[int, str]]):
    """The figures of each verb on one raster that are not known yet."""
    raster, store = folder / f"discs_{side}.tif", folder / f"discs_{side}.zarr"
    if not raster.exists():  # elsewhere: what is started from here must not inherit a large peak
        writer = get_context("spawn").Process(
            target=write_scene, args=(raster, side, PITCH, SMALLEST, LARGEST)
        )
        writer.start()
        writer.join()
    about: dict = {"side": side, "mpx": round(side**2 / 1e6, 1)}
    verbs = {"encode", "everything", "coverage"} - {verb for at, verb in known if at == side}
    foretold = json.loads(measured("info", raster, "--json")["output"]) if verbs else {}
    if (side, "encode") not in known:
        row = measured("encode", raster, "-o", store)
        row |= {"mb": round(megabytes(store)), "tiles": sum(foretold["tiles_by_scale"].values())}
        row |= {"foretold_s": foretold["encode_s"], "foretold_mb": foretold["encode_mb"]}
        yield about | {"verb": "encode"} | row
    if (side, "segment") not in known:
        prompts = folder / f"clicks_{side}.gpkg"
        count = clicks(prompts, side)
        row = measured(
            "segment", raster, prompts, "--store", store, "--scales", "1,2",
            "-o", folder / f"clicked_{side}.gpkg", "--mode", "replace",
        )  # fmt: skip
        yield about | {"verb": "segment", "objects": count} | row
    for verb in ("everything", "coverage"):
        if (side, verb) in known or (verb == "coverage" and side > cover):
            continue
        target = folder / f"{verb}_{side}.gpkg"
        before = sum(megabytes(part) for part in folder.glob(f"discs_{side}.*.objects"))
        row = measured(
            "everything", raster, "--store", store, "--density", density, "-o", target,
            *(["--coverage"] if verb == "coverage" else []), "--mode", "replace",
        )  # fmt: skip
        objects = int(geopandas.read_file(target, ignore_geometry=True, columns=["id"])["id"].max())
        kept = sum(megabytes(part) for part in folder.glob(f"discs_{side}.*.objects")) - before
        row |= {"objects": objects, "mb": round(kept + target.stat().st_size / 1e6, 2)}
        if density == DENSITY:
            row["foretold_s"] = round(foretold[f"{verb}_s"] - foretold["encode_s"], 1)
            row["foretold_mb"] = foretold[f"{verb}_mb"]
        yield about | {"verb": verb} | row


def draw(rows: list[dict], path: Path) -> None:
    """Seconds and peak memory over millions of pixels, on logarithmic axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for verb in VERBS:
        own = sorted(
            (row["mpx"], row["cpu_s"], row["peak_gb"]) for row in rows if row["verb"] == verb
        )
        if own:
            mpx, seconds, peaks = zip(*own, strict=True)
            left.loglog(mpx, seconds, "o-", label=verb)
            right.semilogx(mpx, peaks, "o-", label=verb)
    most = max(row["mpx"] for row in rows)
    for axes, title in ((left, "processor seconds"), (right, "peak memory, GB")):
        axes.set_xlabel("million pixels")
        axes.set_title(title)
        axes.grid(visible=True, which="major", alpha=0.3)
    ends = np.array([4, most])
    left.loglog(ends, ends, ":", color="grey", label="one second a million pixels")
    right.set_ylim(0, None)
    left.legend(fontsize=7)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sides", default="2048,8192,32768", help="px, with commas between")
    parser.add_argument("--density", type=int, default=8)
    parser.add_argument("--cover", type=int, default=8192, help="px a side up to which to cover")
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    notes = arguments.folder / "scale.jsonl"
    rows = [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []
    known = {(row["side"], row["verb"]) for row in rows}
    for side in map(int, arguments.sides.split(",")):
        found = rows_of(side, arguments.folder, arguments.density, arguments.cover, known)
        for row in found:
            del row["output"]
            rows.append(row)
            with notes.open("a") as file:
                file.write(json.dumps(row) + "\n")
    columns = (
        "side", "verb", "tiles", "objects", "s", "cpu_s", "peak_gb", "mb", "foretold_s",
        "foretold_mb",
    )  # fmt: skip
    print(" | ".join(columns))
    for row in rows:
        print(" | ".join(str(row.get(column, "")) for column in columns))
    if arguments.picture:
        draw(rows, arguments.picture)


if __name__ == "__main__":
    main()
