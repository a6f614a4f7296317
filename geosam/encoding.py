"""Tiles through the encoder: reading, encoding and writing overlap in time."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np

from geosam.protocol import Features, Images, Model
from geosam.recipe import Stretch
from tiles import Chip, FeatureStore, Raster, RasterError, Tile

READ_AHEAD = 8  # tiles at least, and two batches
WRITERS = 4  # threads: one compresses slower than a GPU encodes

Done = tuple[Tile, RasterError | None]  # a tile that was dealt with, or why it cannot be read


def encode_tiles(
    model: Model,
    raster: Raster,
    store: FeatureStore,
    stretch: Stretch,
    tiles: Sequence[Tile],
) -> Iterator[Done]:
    """Encode tiles into the store; a tile without data is recorded as empty and costs no encode.

    Tiles that are done stay done if this is interrupted in any way. A tile that cannot be read
    does not keep the others from being encoded. One that another process has put meanwhile is left.

    Yields:
        Each tile once it was read, with the error if it could not be. All are in the store at the
        end, not before.

    Raises:
        StoreUnwritable: a tile could not be written.
    """
    ahead = max(READ_AHEAD, 2 * model.batch)
    batch: list[tuple[Tile, Chip, Images]] = []
    with ThreadPoolExecutor(WRITERS) as writer:
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

        for tile, found in _in_order(partial(_read_image, raster, stretch), tiles, ahead):
            if isinstance(found, RasterError):
                yield tile, found
                continue
            chip, image = found
            if not _settled(store, tile, chip):
                batch.append((tile, chip, image))
            if len(batch) == model.batch:
                flush()
            yield tile, None
        flush()
        for future in writing:
            future.result()


def _settled(store: FeatureStore, tile: Tile, chip: Chip) -> bool:
    """Whether a tile need not be encoded: it has no data, or another process has put it."""
    if not chip.valid.any():
        _put(store, tile, None, chip)
    return store.status(tile) != "missing"


def _put(store: FeatureStore, tile: Tile, features: Features | None, chip: Chip) -> None:
    if store.status(tile) == "missing":
        store.put(tile, features, chip.valid, chip.whole)


def _read_image(raster: Raster, stretch: Stretch, tile: Tile) -> tuple[Chip, Images]:
    chip = raster.read(tile.read, stretch.bands, tile.scale)
    return chip, stretch(chip)


def _in_order(
    read: Callable[[Tile], tuple[Chip, Images]], tiles: Sequence[Tile], ahead: int
) -> Iterator[tuple[Tile, tuple[Chip, Images] | RasterError]]:
    """Tiles with what was read of them, in order, ahead in a thread; or why they cannot be read."""
    with ThreadPoolExecutor(1) as reader:
        coming: deque[tuple[Tile, Future[tuple[Chip, Images]]]] = deque()
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
                    yield tile, error
                    continue
                yield tile, found
        finally:
            for _, future in coming:
                future.cancel()
