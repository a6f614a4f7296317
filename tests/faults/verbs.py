"""The verbs that faults befall: what they are given, what they write, and how to compare it."""

import hashlib
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import rasterio
import shapely
from PIL import Image

from geosam.exchange.training_set import export
from geosam.registry import WeightsFile
from tests.fakes import discs, tiles_of, write_raster
from tests.faults.child import Command, Ended, Ill
from tiles import FeatureStore, Raster, Tile

PLACES = [(110, 120, 30), (420, 140, 45), (300, 430, 60), (90, 470, 25), (500, 520, 40)]
SIDE = 600
PAGE = 4096
WEIGHTS = np.random.default_rng(0).bytes(3_000_000)


@dataclass(frozen=True)
class Verb:
    """A command line.

    Attributes:
        words: it, run in a folder with the inputs.
        outputs: what it makes, in the order in which it gets its names.
        store: of its features.
        raster: that it reads.
        real: whether nano computes.
    """

    words: str
    outputs: tuple[str, ...]
    store: str | None = None
    raster: str | None = "ortho.tif"
    real: bool = False


ALL = "everything ortho.tif --scales 4,8 --density 16 --store f.zarr -o "
TRUTH = "--raster ortho.tif --truth truth.gpkg"
EXPORT = "export ortho.tif truth.gpkg --size 200 -o made"
VERBS = {
    "encode": Verb("encode ortho.tif -o f.zarr --scales 1,2,4,8", ("f.zarr",), "f.zarr"),
    "segment": Verb(
        "segment ortho.tif prompts.gpkg --store f.zarr -o found.gpkg --preview seen.png",
        ("seen.png", "found.gpkg"), "f.zarr",
    ),
    "centred": Verb(
        "segment ortho.tif prompts.gpkg --centred --store f.zarr -o found.gpkg",
        ("f.zarr", "found.gpkg"),
    ),
    "everything": Verb(f"{ALL} all.gpkg", ("all.gpkg",), "f.zarr"),
    "landmarks": Verb(
        f"{ALL} all.gpkg --centred --labels all.tif", ("f.zarr", "all.tif", "all.gpkg")
    ),
    "labels": Verb(f"{ALL} all.gpkg --labels all.tif", ("all.tif", "all.gpkg"), "f.zarr"),
    "coverage": Verb(
        f"{ALL} all.fgb --coverage --labels all.tif", ("all.tif", "all.fgb"), "f.zarr"
    ),
    "vectorize": Verb("vectorize labels.tif -o areas.gpkg", ("areas.gpkg",), raster="labels.tif"),
    "export": Verb(f"{EXPORT} --format coco", ("made",)),
    "chips": Verb(f"{EXPORT} --format chips", ("made",)),
    "import": Verb("import coco/annotations/train.json -o back.gpkg", ("back.gpkg",), raster=None),
    "evaluate": Verb(
        f"evaluate {TRUTH} --limit 3 --json figures.json --picture cases.png",
        ("cases.png", "figures.json"), "ortho.tif.flood-0.features.zarr",
    ),
    "train": Verb(
        f"train {TRUTH} -o own.safetensors --steps 2", ("own.png", "own.md", "own.safetensors"),
        "ortho.tif.nano-d18a671a.features.zarr", real=True,
    ),
    "pull": Verb("models pull tiny", ("cache/tiny.pth",), raster=None),
    "demo": Verb(
        "demo -o shown", ("shown/features.zarr", "shown/trees.gpkg", "shown/trees.png"),
        raster=None, real=True,
    ),
}  # fmt: skip


def make_inputs(folder: Path) -> None:
    """A raster of discs on noise, prompts and truth on it, labels of it, and a COCO set."""
    folder.mkdir()
    grey = discs((SIDE, SIDE), *PLACES)
    noise = np.random.default_rng(0).integers(0, 3, grey.shape, np.uint8)
    grey[grey == 20] += noise[grey == 20]
    tiled = {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"}
    path = write_raster(folder / "ortho.tif", np.stack([grey] * 3), **tiled)
    labels = np.where(grey > 100, grey, 0).astype(np.uint16)
    labels[:, : SIDE // 8] = 7
    write_raster(folder / "labels.tif", labels, **tiled)
    with Raster.open(path) as raster:
        frame = raster.frame
    shapes = [shapely.Point(col, row).buffer(radius) for row, col, radius in PLACES]
    shapes.append(shapely.box(3, 3, SIDE - 3, SIDE - 3))  # whose tile shows every block
    shapes = [shapely.transform(shape, frame.to_world) for shape in shapes]
    truth = geopandas.GeoDataFrame({"id": range(len(shapes))}, geometry=shapes, crs=frame.crs)
    truth.to_file(folder / "truth.gpkg")
    boxes = truth.geometry.envelope
    geopandas.GeoDataFrame({"id": range(len(boxes))}, geometry=boxes, crs=frame.crs).to_file(
        folder / "prompts.gpkg"
    )
    export(path, truth, folder / "coco", format="coco", size=256)


@dataclass
class Ground:
    """Where verbs run: folders with the inputs, and what undisturbed runs have made."""

    inputs: Path
    scratch: Path
    weights: WeightsFile
    known: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)
    count: int = 0

    def folder(self, under: Path | None = None) -> Path:
        """A fresh folder with the inputs."""
        self.count += 1
        folder = (under or self.scratch) / f"run{self.count}"
        shutil.copytree(self.inputs, folder)
        return folder

    def start(self, name: str, folder: Path, ill: Ill | None = None, words: str = "") -> Command:
        """A verb, or other words in its place, started in a folder."""
        verb = VERBS[name]
        return Command(
            folder, self.scratch, (words or verb.words).split(), ill=ill, real=verb.real,
            weights=self.weights,
        )  # fmt: skip

    def run(self, name: str, folder: Path, ill: Ill | None = None, words: str = "") -> Ended:
        """A verb, or other words in its place, run in a folder."""
        return self.start(name, folder, ill, words).end()


def made(name: str, folder: Path) -> dict[str, Any]:
    """What a verb has made in a folder so far, to be compared."""
    paths = {output: folder / output for output in VERBS[name].outputs}
    return {output: content(path) for output, path in paths.items() if path.exists()}


def content(path: Path) -> Any:
    """What a file or a folder says, whatever the day and the order of bytes."""
    if path.suffix == ".zarr":
        return tiles_of(FeatureStore.open(path, writable=False))
    if path.is_dir():
        return {str(p.relative_to(path)): content(p) for p in path.rglob("*") if p.is_file()}
    if path.suffix in (".gpkg", ".fgb"):
        table = geopandas.read_file(path)
        shapes = shapely.to_wkb(shapely.normalize(table.geometry.to_numpy()), hex=True)
        rows = table.drop(columns="geometry").astype(str).to_numpy().tolist()
        return sorted((shape, *row) for shape, row in zip(shapes, rows, strict=True))
    if path.suffix == ".png":
        with Image.open(path) as image:
            return hashlib.sha256(np.asarray(image).tobytes()).hexdigest()
    if path.suffix == ".tif":
        with rasterio.open(path) as file:
            return hashlib.sha256(file.read().tobytes()).hexdigest(), file.shape
    if path.suffix == ".json":
        return json.loads(path.read_text())
    if path.suffix == ".md":
        lines = path.read_text().splitlines()
        return [line for line in lines if not line.startswith(("| Date", "| Steps"))]  # and minutes
    return hashlib.sha256(path.read_bytes()).hexdigest()


def chunk_of(store: FeatureStore, kind: str, tile: Tile) -> Path:
    """The file that holds a tile's features or its validity."""
    row, col = tile.index
    (chunk,) = (Path(store.path) / kind / f"{tile.scale:g}").glob(f"c.{row}.{col}.*")
    return chunk


def flip(chunk: Path) -> None:
    """Flip the bits of a byte in the middle."""
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 0xFF
    chunk.write_bytes(data)


def occupied(folder: Path) -> int:
    """Bytes that a folder's files take in pages of a file system."""
    sizes = (path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return sum(-(-size // PAGE) * PAGE for size in sizes)
