"""What can be asked of the server: a method an operation, whose parameters are the request's.

docs/protocol.md tells it to those who write clients.
"""

import os
import platform
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import geopandas
import numpy as np
import shapely
from shapely.geometry import mapping

from geosam import __version__
from geosam.automatic.run import everything
from geosam.decode import CLICK_SCALES, decode
from geosam.download import pull
from geosam.errors import ProtocolError
from geosam.masks import Mask
from geosam.polygons import records
from geosam.prompts import PromptSet
from geosam.protocol import FILL, Model, TilePrompt
from geosam.registry import PUBLISHED, published
from geosam.scene import Scene, check_scales
from geosam.serve.places import outward, stored_area, tiles_in
from geosam.serve.session import Opened, Session, tile_counts
from geosam.serve.tasks import Task
from geosam.serve.values import area_of, arguments, crs_of, plain, prompt_set
from tiles import StoreIncomplete

PROTOCOL = 1
SLOW = frozenset({"batch", "encode", "everything", "pull", "self_test"})
NEWEST = frozenset({"preview"})

Answer: TypeAlias = dict[str, Any]
Geometry: TypeAlias = Mapping[str, Any]


class Operations:
    """The operations of one session; its public methods are what can be asked."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._seconds: dict[str, float] = {}  # to encode one image, by model

    def named(self, op: object) -> Callable[..., Answer]:
        """The operation of a name.

        Raises:
            ProtocolError: there is none.
        """
        known = {
            name: method
            for name, method in vars(Operations).items()
            if not name.startswith("_") and name != "named"
        }
        if not isinstance(op, str) or op not in known:
            raise ProtocolError(
                f"op: {op!r} (expected one of {', '.join(sorted([*known, 'cancel']))})."
            )
        return getattr(self, op)  # type: ignore[no-any-return]

    def hello(self, _task: Task, *, protocol: int) -> Answer:
        """Agree on the protocol."""
        if protocol != PROTOCOL:
            raise ProtocolError(
                f"protocol: {protocol} (expected {PROTOCOL}). Install a client and a geosam of the "
                "same version."
            )
        return {
            "protocol": PROTOCOL,
            "version": __version__,
            "python": platform.python_version(),
            "pid": os.getpid(),
        }

    def models(self, _task: Task) -> Answer:
        """The models that can be loaded or fetched."""
        embedded: list[Answer] = [
            {"name": "nano", "ready": True, "size_mb": None, "licence": "MIT"}
        ]
        return {
            "models": embedded
            + [
                {
                    "name": file.name, "ready": file.path.exists(),
                    "size_mb": round(file.size / 1e6, 1), "licence": file.licence,
                }
                for file in PUBLISHED.values()
            ]
        }  # fmt: skip

    def pull(self, task: Task, *, name: str, mirror: str | None = None) -> Answer:
        """Fetch a model's weights."""
        return {"path": str(pull(published(name), mirror=mirror, progress=task.progress))}

    def self_test(
        self, task: Task, *, model: str = "nano", device: str = "auto", precision: str = "fp32",
        backend: str = "torch",
    ) -> Answer:  # fmt: skip
        """Load a model and let it outline a bright square."""
        loaded = self._session.model(model, device, precision, backend)
        task.check()
        size = loaded.size
        image = np.random.default_rng(0).normal(80, 6, (1, 3, size, size))
        low, high = size * 3 // 8, size * 5 // 8
        image[..., low:high, low:high] += 90
        began = time.perf_counter()
        features = loaded.encode(image.clip(0, 255).astype(np.uint8))[0]
        encoded = time.perf_counter()
        box = TilePrompt(
            np.empty((0, 2), np.float32), np.empty(0, np.int64),
            np.array([low, low, high, high], np.float32),
        )  # fmt: skip
        logits, scores = loaded.decode(features, [box], multimask=False)
        decoded = time.perf_counter()
        found = logits[0, 0] > 0
        truth = np.zeros_like(found)
        cell = size // loaded.logits_size
        truth[low // cell : high // cell, low // cell : high // cell] = True
        return {
            "model": loaded.id,
            "device": loaded.device,
            "precision": loaded.precision,
            "iou": round(float((found & truth).sum() / (found | truth).sum()), 3),
            "score": round(float(scores[0, 0]), 3),
            "encode_ms": round((encoded - began) * 1e3, 1),
            "decode_ms": round((decoded - encoded) * 1e3, 1),
        }

    def open(
        self, task: Task, *, raster: str, model: str = "nano", device: str = "auto",
        precision: str = "fp32", backend: str = "torch", store: str | None = None,
        bands: list[int] | None = None,
    ) -> Answer:  # fmt: skip
        """Open a raster with its features; they are made as they are needed."""
        loaded = self._session.model(model, device, precision, backend)
        task.check()
        handle, opened = self._session.open(loaded, raster, store, bands)
        frame = opened.scene.frame
        return {
            "scene": handle,
            "crs": frame.crs.to_wkt(),
            "size_px": list(reversed(frame.shape)),
            "bounds": list(frame.bounds),
            "pixel_m": list(frame.pixel_size_m),
            "model": loaded.id,
            "device": loaded.device,
            "store": opened.scene.store.path,
            "bands": list(opened.scene.recipe.stretch.bands),
            "grids": tile_counts(opened.scene.store),
        }

    def close(self, _task: Task, *, scene: str) -> Answer:
        """Forget a raster; its features stay."""
        self._session.close(scene)
        return {}

    def plan(
        self, task: Task, *, scene: str, area: Geometry | None = None, crs: str | None = None,
        scales: list[float] | None = None,
    ) -> Answer:  # fmt: skip
        """What encoding an area would take."""
        opened = self._session.opened(scene)
        chosen = _scales(opened, scales)
        shape = None if area is None else area_of(area)
        wanted = tiles_in(opened.scene, chosen, shape, crs_of(crs))
        missing = opened.scene.missing(wanted)
        task.check()
        seconds = self._seconds_an_image(opened.model)
        size_mb = np.prod(opened.model.feature_shape) * 2 / 1e6
        return {
            "tiles": len(wanted),
            "missing": len(missing),
            "tile_s": round(seconds, 4),
            "seconds": round(seconds * len(missing), 1),
            "megabytes": round(float(size_mb * len(missing)), 1),
        }

    def encode(
        self, task: Task, *, scene: str, area: Geometry | None = None, crs: str | None = None,
        scales: list[float] | None = None, view: list[float] | None = None,
    ) -> Answer:  # fmt: skip
        """Encode an area or the whole raster, from the middle of the view outward."""
        opened = self._session.opened(scene)
        own = opened.beside()
        shape = None if area is None else area_of(area)
        wanted = tiles_in(own, _scales(opened, scales), shape, crs_of(crs))
        if view is not None:
            ((x, y),) = own.frame.to_pixel([view], crs_of(crs)).tolist()
            wanted = outward(wanted, (x, y))
        missing = own.missing(wanted)
        own.ensure(missing, task.progress)
        return {"encoded": len(missing), "grids": tile_counts(own.store)}

    def ready(self, _task: Task, *, scene: str) -> Answer:
        """Where a lone click is answered without encoding, or a small object with one tile."""
        place = self._session.opened(scene).scene
        store = place.store
        usual = [scale for scale in store.scales if scale in CLICK_SCALES]
        area = stored_area(store, usual or [store.scales[-1]])
        world = shapely.transform(area, place.frame.to_world)
        return {
            "area": None if world.is_empty else mapping(world),
            "grids": tile_counts(store),
        }

    def segment(
        self, task: Task, *, scene: str, prompts: list[Geometry], crs: str | None = None,
        multimask: bool = False, min_area_m2: float = 0.0, simplify_m: float | None = None,
    ) -> Answer:  # fmt: skip
        """Outline the object of each prompt; the masks are kept for `vectorize`."""
        opened = self._session.opened(scene)
        masks = _decoded(opened.scene, prompt_set(prompts, crs), task, multimask=multimask)
        handles = [self._session.keep(mask) for mask in masks]
        return self._vectorized(masks, handles, min_area_m2, simplify_m)

    def batch(
        self, task: Task, *, scene: str, prompts: list[Geometry], crs: str | None = None,
        min_area_m2: float = 0.0, simplify_m: float | None = None,
    ) -> Answer:  # fmt: skip
        """Outline the object of each of many prompts, beside those that a person asks for."""
        own = self._session.opened(scene).beside()
        masks = _decoded(own, prompt_set(prompts, crs), task)
        return self._vectorized(masks, [], min_area_m2, simplify_m)

    def everything(
        self, task: Task, *, scene: str, area: Geometry | None = None, crs: str | None = None,
        coverage: bool = False, min_area_m2: float = 0.0, max_area_m2: float | None = None,
    ) -> Answer:  # fmt: skip
        """Outline every object of an area or the whole raster; polygons come as events."""
        opened = self._session.opened(scene)
        most_m2 = np.inf if max_area_m2 is None else max_area_m2
        if not 0 <= min_area_m2 <= most_m2:
            raise ProtocolError(
                f"min_area_m2 and max_area_m2: {min_area_m2} and {max_area_m2} (expected 0 or "
                "more, and the first not above the second)."
            )
        shape = None
        if area is not None:
            of = crs_of(crs) or opened.scene.frame.crs
            shape = geopandas.GeoDataFrame(geometry=[area_of(area)], crs=of)
        found = 0
        for table in everything(
            opened.model, **opened.place, area=shape, coverage=coverage, min_area_m2=min_area_m2,
            max_area_m2=most_m2, progress=task.progress,
        ):  # fmt: skip
            task.found([plain(record) for record in table.to_dict("records")])
            found += len(table)
        return {"found": found}

    def preview(
        self, task: Task, *, scene: str, prompt: Geometry, crs: str | None = None,
        encode: bool = False, min_area_m2: float = 0.0, simplify_m: float | None = None,
    ) -> Answer:  # fmt: skip
        """The polygon that a prompt would give; of several that wait only the newest is answered.

        Nothing is encoded for it unless `encode` is true, but for what `Scene.as_stored` says.
        """
        task.check()
        opened = self._session.opened(scene)
        place = opened.scene if encode else opened.scene.as_stored()
        asked = prompt_set([prompt], crs)
        try:
            found = list(decode(place, asked, scales=place.store.scales, progress=task.checked))
        except StoreIncomplete:
            return {"polygons": [], "encoded": False}
        answer = self._vectorized([mask for _, mask in found], [], min_area_m2, simplify_m)
        return {**answer, "encoded": True}

    def vectorize(
        self, _task: Task, *, masks: list[str], min_area_m2: float = 0.0,
        simplify_m: float | None = None,
    ) -> Answer:  # fmt: skip
        """The polygons of masks that were kept, drawn anew without decoding."""
        kept = [self._session.mask(handle) for handle in masks]
        return self._vectorized(kept, masks, min_area_m2, simplify_m)

    def _vectorized(
        self, masks: list[Mask], handles: list[str], min_area_m2: float, simplify_m: float | None
    ) -> Answer:
        found, _ = records(masks, min_area_m2=min_area_m2, simplify_m=simplify_m)
        rows = [plain(record) for record in found]
        for row, handle in zip(rows, handles, strict=False):  # a preview keeps none
            row["mask"] = handle
        return {"polygons": rows}

    def _seconds_an_image(self, model: Model) -> float:
        """What one image takes to encode, measured once a model, when it is warm."""
        if model.id not in self._seconds:
            image = np.empty((1, 3, model.size, model.size), np.uint8)
            image[:] = np.array(FILL, np.uint8)[:, None, None]
            model.encode(image)
            began = time.perf_counter()
            model.encode(image)
            self._seconds[model.id] = time.perf_counter() - began
        return self._seconds[model.id]


def _scales(opened: Opened, scales: list[float] | None) -> tuple[float, ...]:
    """Scales to encode: by default all that a click is tried at, and the coarser ones."""
    if scales is not None:
        return check_scales(opened.scene, scales)
    return tuple(scale for scale in opened.scene.store.scales if scale >= min(CLICK_SCALES))


def _decoded(
    scene: Scene, prompts: PromptSet, task: Task, *, multimask: bool = False
) -> list[Mask]:
    """The masks of prompts, in their order."""
    found = decode(
        scene, prompts, scales=scene.store.scales, multimask=multimask, progress=task.progress
    )
    masks = [mask for _, mask in sorted(found, key=lambda pair: pair[0])]
    task.check()
    return masks


def perform(operations: Operations, task: Task) -> Answer:
    """Do what a task asks for.

    Raises:
        ProtocolError: there is no such operation, or its parameters are wrong.
        Cancelled: nobody waits for it any more.
    """
    operation = operations.named(task.op)
    return operation(task, **arguments(operation, task.given))
