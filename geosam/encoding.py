"""Tiles through the encoder: reading, encoding and writing overlap in time."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np

from geosam.protocol import Features, Images, Model, Progress
from geosam.recipe import Stretch
from tiles import Chip, FeatureStore, Raster, RasterError, Tile

READ_AHEAD = 8  # tiles at least, and two batches


def encode_tiles(
    model: Model,
    raster: Raster,
    store: FeatureStore,
    stretch: Stretch,
    tiles: Sequence[Tile],
    *,
    progress: Progress | None = None,
) -> None:
    """Encode tiles into the store; a tile without data is recorded as empty and costs no encode.

    Tiles that are done stay done if this is interrupted in any way. A tile that cannot be read
    does not keep the others from being encoded. One that another process has put meanwhile is left.

    Raises:
        RasterError: tiles could not be read; the first one is named.
        StoreUnwritable: a tile could not be written.
    """
    advance = progress or (lambda _done, _total: None)
    done, ahead = 0, max(READ_AHEAD, 2 * model.batch)
    unreadable: dict[Tile, RasterError] = {}
    batch: list[tuple[Tile, Chip, Images]] = []
    with ThreadPoolExecutor(1) as writer:
        writing: deque[Future[None]] = deque()

        def flush() -> None:
            if not batch:
                return
            features = model.encode(np.stack([image for _, _, image in batch]))
            for (tile, chip, _), own in zip(batch, features, strict=True):
                writing.append(writer.submit(_put, store, tile, own, chip))
            batch.clear()
            while len(writing) > ahead:
                writing.popleft().result()

        read = partial(_read_image, raster, stretch)
        for tile, chip, image in _in_order(read, tiles, ahead, unreadable):
            if not chip.valid.any():
                _put(store, tile, None, chip)
            elif store.status(tile) == "missing":
                batch.append((tile, chip, image))
            if len(batch) == model.batch:
                flush()
            done += 1
            advance(done, len(tiles))
        flush()
        for future in writing:
            future.result()
    _complain(unreadable)


def _put(store: FeatureStore, tile: Tile, features: Features | None, chip: Chip) -> None:
    if store.status(tile) == "missing":
        store.put(tile, features, chip.valid, chip.whole)


def _read_image(raster: Raster, stretch: Stretch, tile: Tile) -> tuple[Tile, Chip, Images]:
    chip = raster.read(tile.read, stretch.bands, tile.scale)
    return tile, chip, stretch(chip)


def _in_order(
    read: Callable[[Tile], tuple[Tile, Chip, Images]],
    tiles: Sequence[Tile],
    ahead: int,
    unreadable: dict[Tile, RasterError],
) -> Iterator[tuple[Tile, Chip, Images]]:
    """Tiles as they are read, in order, ahead in a thread; those that fail are noted."""
    with ThreadPoolExecutor(1) as reader:
        coming: deque[tuple[Tile, Future[tuple[Tile, Chip, Images]]]] = deque()
        queue = iter(tiles)
        try:
            while True:
                for tile in queue:
                    coming.append((tile, reader.submit(read, tile)))
                    if len(coming) > ahead:
                        break
                if not coming:
                    return
                tile, future = coming.popleft()
                try:
                    found = future.result()
                except RasterError as error:
                    unreadable[tile] = error
                    continue
                yield found
        finally:
            for _, future in coming:
                future.cancel()


def _complain(unreadable: dict[Tile, RasterError]) -> None:
    for tile, error in unreadable.items():
        others = f" So are {len(unreadable) - 1} other tiles." if len(unreadable) > 1 else ""
        raise RasterError(f"{tile}: {error}{others}") from error
