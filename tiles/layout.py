"""What a feature store looks like in Zarr: a group, and arrays of one chunk a tile."""

import json
import shutil
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.store import Store
from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec
from zarr.core.sync import sync  # a Zarr store's own methods are all asynchronous
from zarr.storage import LocalStore

from tiles.errors import StoreDamaged, StoreMismatch, StoreUnreachable, StoreUnwritable
from tiles.grid import TileGrid
from tiles.remote import UrlStore

FORMAT = "geosam-features"
VERSION = 2  # 2: tiles lie on a lattice with an anchor; in 1 they started with the raster

Index = tuple[int, int]


class TileArray:
    """An array of shape (rows, cols, ...) with one chunk for each tile.

    A chunk is compressed, carries a checksum and is replaced in one step, so it is either whole or
    found out when it is read.

    Raises:
        StoreDamaged: If the store has no such array.
    """

    def __init__(self, store: Store, path: str) -> None:
        mode: Any = "r" if store.read_only else "r+"
        try:
            array = zarr.open_array(store=store, path=path, mode=mode, zarr_format=3)
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
            raise StoreDamaged(
                f"Feature store {store}: {path} cannot be opened (expected an array): {error}. "
                "Encode the raster into a new store."
            ) from error
        self._array = array.with_config({"write_empty_chunks": True})
        self._store = store

    @staticmethod
    def create(
        group: zarr.Group, path: str, tiles: Index, shape: tuple[int, ...], *, dtype: str
    ) -> None:
        """Lay an array out in a group, without any chunk."""
        group.create_array(
            path,
            shape=(*tiles, *shape),
            chunks=(1, 1, *shape),
            dtype=dtype,
            fill_value=0,
            serializer=BytesCodec(),
            compressors=[ZstdCodec(level=1), Crc32cCodec()],
            chunk_key_encoding={"name": "default", "separator": "."},
        )

    def has(self, index: Index) -> bool:
        """Whether a tile has a chunk."""
        return bool(sync(self._store.exists(self._key(index))))

    def indices(self) -> set[Index]:
        """The tiles that have a chunk, by one listing of the keys."""
        keys = set(sync(_collect(self._store.list_dir(self._array.path))))
        rows, cols, *_ = self._array.shape
        prefix = f"{self._array.path}/"
        return {
            index
            for index in np.ndindex(rows, cols)
            if self._key(index).removeprefix(prefix) in keys
        }

    def read(self, index: Index) -> npt.NDArray[Any]:
        """The chunk of a tile; zeros where it has none.

        Raises:
            ValueError: If the chunk is not what was written.
        """
        try:
            return np.asarray(self._array[index])
        except StoreUnreachable:
            raise
        except (RuntimeError, OSError) as error:
            raise ValueError(str(error)) from error

    def write(self, index: Index, values: npt.NDArray[Any]) -> None:
        """Write the chunk of a tile."""
        self._array[index] = values

    def delete(self, index: Index) -> None:
        """Delete the chunk of a tile, if it has one."""
        sync(self._store.delete(self._key(index)))

    def _key(self, index: Index) -> str:
        coordinates = (*index, *(0,) * (self._array.ndim - 2))
        return f"{self._array.path}/{self._array.metadata.encode_chunk_key(coordinates)}"


def features_path(scale: float) -> str:
    """Where the features of the grid at a scale are."""
    return f"features/{scale:g}"


def valid_path(scale: float) -> str:
    """Where the validity of the grid at a scale is."""
    return f"valid/{scale:g}"


def create_layout(path: str | Path, attributes: dict[str, Any]) -> None:
    """Create the group and its arrays; a local folder appears whole or not at all.

    Raises:
        StoreMismatch: If something is at the path already.
        StoreUnwritable: If nothing can be written there.
        StoreUnreachable: If a URL does not answer.
    """
    exists = StoreMismatch(
        f"Feature store {path}: exists already (expected nothing there). "
        "Open it to go on with it, or choose another path."
    )
    try:
        if _is_url(path):
            store = UrlStore.at(str(path), read_only=False)
            if sync(store.exists("zarr.json")):
                raise exists
            _write_layout(store, attributes)
            return
        path = Path(path)
        if path.exists():
            raise exists
        _create_folder(path, attributes)
    except StoreUnreachable:
        raise
    except OSError as error:
        if not _is_url(path) and Path(path).exists():
            raise exists from error
        raise StoreUnwritable(
            f"Feature store {path}: {error.strerror or error} (expected to be created). Make room, "
            "or choose another place."
        ) from error


def open_layout(path: str | Path, *, writable: bool) -> tuple[Store, dict[str, Any]]:
    """The Zarr store at a path, and the attributes of its group.

    Raises:
        StoreMismatch: If no feature store of a version that is understood is there.
        StoreUnreachable: If a URL does not answer.
    """
    if _is_url(path):
        store: Store = UrlStore.at(str(path), read_only=not writable)
    elif Path(path).is_dir():
        store = LocalStore(Path(path), read_only=not writable)
    else:
        raise StoreMismatch(
            f"Feature store {path}: no such folder (expected a feature store). "
            "Check the path, or encode the raster first."
        )
    return store, _read_attributes(path, store)


def plain_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as they come back from JSON.

    Raises:
        ValueError: If they are not JSON values.
    """
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(values), allow_nan=False))
    except TypeError as error:
        raise ValueError(f"Store meta: {error} (expected JSON values).") from error
    return plain


def _is_url(path: str | Path) -> bool:
    return isinstance(path, str) and ("://" in path or "::" in path)


def _create_folder(path: Path, attributes: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        _write_layout(LocalStore(scratch), attributes)
        scratch.rename(path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write_layout(store: Store, attributes: dict[str, Any]) -> None:
    group = zarr.create_group(store=store, zarr_format=3, attributes=attributes)
    features = tuple(attributes["feature_shape"])
    for grid in map(TileGrid.from_dict, attributes["grids"]):
        tiles, chip = (grid.rows, grid.cols), (grid.size, grid.size)
        TileArray.create(group, features_path(grid.scale), tiles, features, dtype="float16")
        TileArray.create(group, valid_path(grid.scale), tiles, chip, dtype="uint8")


def _read_attributes(path: str | Path, store: Store) -> dict[str, Any]:
    try:
        group = zarr.open_group(store=store, mode="r", zarr_format=3, use_consolidated=False)
        attributes: dict[str, Any] = group.attrs.asdict()
    except StoreUnreachable:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreMismatch(
            f"Feature store {path}: no Zarr group (expected a feature store): {error}. "
            "Check the path."
        ) from error
    if attributes.get("format") != FORMAT:
        raise StoreMismatch(
            f"Feature store {path}: format {attributes.get('format')!r} (expected {FORMAT!r}). "
            "Check the path."
        )
    if attributes["version"] > VERSION:
        raise StoreMismatch(
            f"Feature store {path}: version {attributes['version']} (expected at most {VERSION}). "
            "A newer version of this software wrote it: upgrade."
        )
    if attributes["version"] < VERSION:
        raise StoreMismatch(
            f"Feature store {path}: version {attributes['version']} (expected {VERSION}). An older "
            "version of this software wrote it, whose tiles lie elsewhere: delete it and encode "
            "again, or encode into a new store."
        )
    return attributes


async def _collect(keys: AsyncIterator[str]) -> list[str]:
    return [key async for key in keys]
