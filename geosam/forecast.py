"""What encoding a raster would take: seconds and disk, measured on some of its tiles."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from geosam.encoding import encode_tiles
from geosam.protocol import Model
from geosam.recipe import Stretch
from geosam.scene import ladder
from tiles import FeatureStore, Raster, Tile, TileGrid

LOOKED_AT = 64  # tiles, evenly spread: how many have data, and how long one takes to read
TRIED_S = 5.0  # about how long tiles are encoded for, if a batch of them takes no longer


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a whole encode is expected to take.

    Attributes:
        tiles: how many there are at each scale, tiles without data among them.
        seconds: wall time, on this machine as busy as it is now.
        megabytes: of the feature store.
        tile_s: what one tile takes.
        valid_px: how much of the raster has data.
        seen: of the tiles at the finest of these scales that were looked at, those whose cores
            have data, and how many px of them.
    """

    tiles: dict[float, int]
    seconds: float
    megabytes: float
    tile_s: float
    valid_px: float
    seen: dict[Tile, int]


def forecast(model: Model, raster: Raster, stretch: Stretch) -> Forecast:
    """Read tiles all over a raster, encode some of them into a store that is thrown away.

    Tiles at coarser scales are taken to be like those at scale 1, but for the pixels that have to
    be read for them where the raster has no overviews.

    Raises:
        RasterError: the raster cannot be read.
    """
    grids = [grid for grid in ladder(raster, model.size) if grid.scale >= 1]
    total = sum(map(len, grids))
    spread = np.linspace(0, len(grids[0]) - 1, min(LOOKED_AT, len(grids[0]))).astype(int)
    tiles = [grids[0][divmod(int(place), grids[0].cols)] for place in spread]
    reads = [_read(raster, stretch, tile) for tile in tiles]
    read_s = sum(seconds for _, seconds in reads) / len(tiles)
    with_data = [tile for tile, (valid, _) in zip(tiles, reads, strict=True) if valid.any()]
    cores = [valid[t.core.slices(t.read)] for t, (valid, _) in zip(tiles, reads, strict=True)]
    seen = {t: int(core.sum()) for t, core in zip(tiles, cores, strict=True) if core.any()}
    valid_share = sum(seen.values()) / sum(core.size for core in cores)
    valid_px = valid_share * raster.window.width * raster.window.height
    share = len(with_data) / len(tiles)
    encode_s, size = _try(model, raster, stretch, grids[0], with_data) if with_data else (0.0, 0.0)
    reduce_s = _reduce_s(raster, stretch, grids, read_s)
    encoding, reading = total * share * encode_s, total * (1 - share) * read_s + reduce_s
    seconds = encoding + reading if model.device == "cpu" else max(encoding, reading)
    counts, megabytes = {grid.scale: len(grid) for grid in grids}, total * share * size / 1e6
    return Forecast(counts, seconds, megabytes, encode_s, valid_px, seen)


def _read(raster: Raster, stretch: Stretch, tile: Tile) -> tuple[npt.NDArray[np.bool_], float]:
    """Where a tile has data, and the seconds it took to find out."""
    began = time.perf_counter()
    chip = raster.read(tile.read, stretch.bands, tile.scale)
    return chip.valid, time.perf_counter() - began


def _try(
    model: Model, raster: Raster, stretch: Stretch, grid: TileGrid, tiles: Sequence[Tile]
) -> tuple[float, float]:
    """Seconds and bytes that one of the tiles takes on the way into a store.

    A machine is slower at what it does for the first time, so where there is time the first batch
    is not counted.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tried.zarr"
        store = FeatureStore.create(path, [grid], raster.frame, model.feature_shape, {})
        chosen = tiles[: model.batch]
        seconds = _encode_s(model, raster, store, stretch, chosen)
        affordable = int(TRIED_S / seconds * len(chosen))
        others = tiles[model.batch :]  # what is in the store would cost nothing again
        if others and affordable > len(chosen):
            chosen = others[:: -(-len(others) // affordable)]
            seconds = _encode_s(model, raster, store, stretch, chosen)
        stored = len(grid) - len(store.missing())
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return seconds / len(chosen), size / stored


def _encode_s(
    model: Model, raster: Raster, store: FeatureStore, stretch: Stretch, tiles: Sequence[Tile]
) -> float:
    began = time.perf_counter()
    for _, error in encode_tiles(model, raster, store, stretch, tiles):
        if error:
            raise error
    return time.perf_counter() - began


def _reduce_s(raster: Raster, stretch: Stretch, grids: Sequence[TileGrid], read_s: float) -> float:
    """Seconds that reading coarser tiles takes beyond what tiles at scale 1 take."""
    if len(grids) == 1:
        return 0.0
    coarser = grids[1]
    middle = coarser[coarser.rows // 2, coarser.cols // 2]
    seconds = _read(raster, stretch, middle)[1] / _pixels_read(raster, coarser)  # a pixel
    return sum(
        len(grid) * max(0.0, seconds * _pixels_read(raster, grid) - read_s) for grid in grids[1:]
    )


def _pixels_read(raster: Raster, grid: TileGrid) -> float:
    """How many pixels are read for one of a grid's tiles, from an overview where there is one."""
    step = max((factor for factor in raster.overviews if grid.scale % factor == 0), default=1)
    height, width = raster.frame.shape
    side = grid.size * grid.scale
    return min(side, width) * min(side, height) / step**2
