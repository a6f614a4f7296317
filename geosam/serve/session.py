"""What a server keeps between requests: models, scenes and the last masks, each under a handle."""

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict

from geosam.errors import ProtocolError
from geosam.masks import Mask
from geosam.protocol import Model
from geosam.scene import Scene
from geosam.serve.recent import RecentTiles
from geosam.store_path import is_store
from tiles import FeatureStore

KEPT_MASKS = 500  # of the last ones, about 65 kB each for nano

Loader = Callable[..., Model]  # of a name, a device, a precision and a backend


class Place(TypedDict):
    """Where a scene is, as `Scene.open` takes it."""

    source: str
    store: str | None
    bands: tuple[int, ...] | None


@dataclass(slots=True)
class Opened:
    """A raster as it was opened, with a scene a lane: each thread reads rasters of its own."""

    model: Model
    raster: str
    bands: tuple[int, ...] | None
    scene: Scene
    _beside: Scene | None = None

    @property
    def place(self) -> Place:
        """What to open anew for these very features."""
        path = self.scene.store.path
        return {
            "source": self.raster, "store": None if is_store(self.raster) else path,
            "bands": self.bands,
        }  # fmt: skip

    def beside(self) -> Scene:
        """The scene of the slow lane, opened at its first use."""
        if self._beside is None:
            self._beside = _remembering(Scene.open(self.model, **self.place))
        return self._beside


class Session:
    """Models, scenes and masks by their handles."""

    def __init__(self, load: Loader) -> None:
        self._load = load
        self._models: dict[tuple[str, ...], Model] = {}
        self._scenes: dict[str, Opened] = {}
        self._masks: OrderedDict[str, Mask] = OrderedDict()
        self._numbers = itertools.count(1)
        self._loading = threading.Lock()
        self._lock = threading.Lock()

    def model(self, *choice: str) -> Model:
        """A model by what `load` takes, loaded at its first use."""
        with self._loading:
            if choice not in self._models:
                self._models[choice] = self._load(*choice)
            return self._models[choice]

    def open(
        self, model: Model, raster: str, store: str | None, bands: list[int] | None
    ) -> tuple[str, Opened]:
        """Open a raster; its handle."""
        scene = _remembering(Scene.open(model, raster, store=store, bands=bands))
        opened = Opened(model, raster, None if bands is None else tuple(bands), scene)
        handle = f"scene{next(self._numbers)}"
        self._scenes[handle] = opened
        return handle, opened

    def opened(self, handle: str) -> Opened:
        """A scene by its handle.

        Raises:
            ProtocolError: there is none.
        """
        if handle not in self._scenes:
            known = ", ".join(self._scenes) or "none is open"
            raise ProtocolError(
                f"Scene {handle!r}: not open (expected one of: {known}). Open the raster first."
            )
        return self._scenes[handle]

    def close(self, handle: str) -> None:
        """Forget a scene."""
        self.opened(handle)
        del self._scenes[handle]

    def keep(self, mask: Mask) -> str:
        """Keep a mask for `vectorize`; its handle. The oldest make room."""
        handle = f"mask{next(self._numbers)}"
        with self._lock:
            self._masks[handle] = mask
            while len(self._masks) > KEPT_MASKS:
                self._masks.popitem(last=False)
        return handle

    def mask(self, handle: str) -> Mask:
        """A mask by its handle.

        Raises:
            ProtocolError: it is not kept, or no longer.
        """
        with self._lock:
            if handle not in self._masks:
                raise ProtocolError(
                    f"Mask {handle!r}: not kept (expected one of the last {KEPT_MASKS}). Segment "
                    "its prompt again."
                )
            return self._masks[handle]


def _remembering(scene: Scene) -> Scene:
    return scene.over(RecentTiles.open(scene.store.path))


def tile_counts(store: FeatureStore) -> list[dict[str, float]]:
    """How many tiles a store has and holds, a grid each."""
    return [
        {
            "scale": grid.scale,
            "tiles": len(grid),
            "done": len(grid) - len(store.missing(grid.scale)),
        }
        for grid in store.grids
    ]
