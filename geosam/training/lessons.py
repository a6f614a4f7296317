"""What a network learns from polygons on a raster: crops of it, or tiles that were encoded before.

nano's encoder takes a fifth of a step's time, so its crops are made and encoded anew each step. A
vision transformer's takes nearly all of it: such a network learns on the features of the raster's
own tiles, which are encoded once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import shapely
import torch
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize
from shapely.geometry.base import BaseGeometry
from torch.utils.data import Dataset

from geosam.decode import CLICK_SCALES, FILLS_AT_MOST
from geosam.protocol import FILL, Progress
from geosam.recipe import Stretch
from geosam.scene import Scene as Encoded
from geosam.training.batches import SMALLEST_TARGET_PX, Batch, click_inside, extent, objects
from geosam.training.crops import Crop, take, turn
from geosam.training.places import Place, Polygons
from geosam.training.scenes import Labels, Scene, make_scene
from tiles import Raster, Tile, Window

CONTEXT = 0.5  # of the side of the model's image, seen round the polygons of a block


@dataclass(frozen=True, slots=True)
class PlaceSampler:
    """Draws scenes of places, by how many polygons they have.

    Attributes:
        scenes: one a block with polygons to learn from.
        reductions: raster px per px of each scene.
    """

    scenes: tuple[Scene, ...]
    reductions: tuple[int, ...]

    @classmethod
    def of(cls, places: Sequence[Place], bands: Sequence[int] | None, size: int) -> "PlaceSampler":
        """Read the blocks of places; polygons larger than the model sees best are reduced.

        Args:
            places: where to learn.
            bands: see `Stretch.of`.
            size: side of the model's images, px.
        """
        scenes, reductions = [], []
        for place in places:
            if not len(place.learned):
                continue
            sides = np.ptp(shapely.bounds(place.learned).reshape(-1, 2, 2), axis=1).max(1)
            factor = 2 ** max(0, int(np.log2(np.median(sides) / (FILLS_AT_MOST * size))))
            with Raster.open(place.raster) as raster:
                stretch = Stretch.of(raster, bands)
                for window in _windows(place, factor, size):
                    scene = _scene(place, raster, stretch, window, factor)
                    if len(scene.ids):
                        scenes.append(scene)
                        reductions.append(factor)
        return cls(tuple(scenes), tuple(reductions))

    def draw(self, rng: np.random.Generator) -> tuple[Scene, int]:
        """One of the scenes, and its reduction."""
        counts = np.array([len(scene.ids) for scene in self.scenes])
        chosen = rng.choice(len(counts), p=counts / counts.sum())
        return self.scenes[chosen], self.reductions[chosen]


@dataclass(frozen=True, slots=True)
class Views(Dataset[Batch]):
    """Batches in which each object is seen at all scales at which clicks are decoded.

    The crops of an object follow each other, the finest scale first. All show the same click near
    their middle, as it is decoded, and a box. They are turned by right angles and flipped, no more:
    what tells one reading from another is how the place looks. Number `step` is always the same.

    Attributes:
        sampler: draws scenes.
        seed: of the draws.
        objects: a step, in crops of half the model's side; a quarter as many in whole ones.
        model_size: side of the model's images, px.
    """

    sampler: PlaceSampler
    seed: int
    objects: int
    model_size: int

    def __getitem__(self, step: int) -> Batch:
        """Make one batch; of each crop's two prompts the first is for the box."""
        rng = np.random.default_rng((self.seed, step))
        full = step % 4 == 3
        size = self.model_size if full else self.model_size // 2
        count = max(1, self.objects // 4) if full else self.objects
        parts = [part for _ in range(count) for part in self._views(size, rng)]
        images, targets, clicks, boxes, weights = (
            torch.from_numpy(np.stack(part)) for part in zip(*parts, strict=True)
        )
        room = (self.model_size - size) // 16
        origins = torch.from_numpy(rng.integers(0, room + 1, (len(images), 2))).float() * 16
        return Batch(images, targets, clicks, boxes, weights, origins)

    def _views(self, size: int, rng: np.random.Generator) -> Iterator[tuple[NDArray[Any], ...]]:
        """Image (3, s, s), targets, clicks, boxes and weights of one object at each scale."""
        scene, reduction = self.sampler.draw(rng)
        number = rng.integers(len(scene.ids))
        left, top, right, bottom = scene.boxes[number].astype(int).tolist()
        mask = scene.labels[top:bottom, left:right] == scene.ids[number]
        place = click_inside(mask, rng) + (left, top) + 0.5
        linear = reduction * turn(90.0 * int(rng.integers(4)), 1 - 2 * int(rng.integers(2)))
        spread = size / (4 if size == self.model_size else 32)  # of clicks in tiles, or in foci
        for scale in CLICK_SCALES:
            click = size / 2 + rng.uniform(-spread, spread, 2)
            crop = take(scene, size, linear / scale, click - linear @ place / scale)
            own = crop.labels == scene.ids[number]
            seen = np.count_nonzero(own) >= SMALLEST_TARGET_PX
            cells = (size // 4, size // 4)
            target = cv2.resize(own.astype(np.float32), cells, interpolation=cv2.INTER_AREA)
            bounds = extent(own, rng) if seen else np.array([0, 0, 8, 8], np.float32)
            yield (
                np.moveaxis(crop.image, 2, 0),
                np.stack([target] * 2),
                np.stack([(click - 0.5).astype(np.float32)] * 2),
                np.stack([bounds] * 2),
                np.full(2, seen, np.float32),
            )


@dataclass(frozen=True, slots=True)
class StoredTiles(Dataset[Batch]):
    """Batches on tiles that are encoded already; number `step` is always the same.

    Attributes:
        tiles: with the raster's features and the place whose polygons lie on it.
        seed: of the draws.
        images: tiles a step.
        prompts: prompts a tile.
    """

    tiles: tuple[tuple[Encoded, Place, Tile], ...]
    seed: int
    images: int
    prompts: int

    @classmethod
    def of(
        cls,
        encoded: Sequence[tuple[Encoded, Place]],
        *,
        seed: int,
        images: int,
        prompts: int,
        progress: Progress | None = None,
    ) -> "StoredTiles":
        """Encode the tiles in which the boxes of the polygons would be decoded, and coarser ones.

        Args:
            encoded: rasters with their features.
            seed: of the draws.
            images: tiles a step.
            prompts: prompts a tile.
            progress: called with (done, total) tiles.
        """
        found = []
        for scene, place in encoded:
            tiles = {
                tile: None for polygon in place.learned for tile in _tiles_for(scene, polygon)
            }  # in their order, each once
            scene.ensure(tiles, progress)
            found += [(scene, place, tile) for tile in tiles if scene.store.status(tile) == "done"]
        return cls(tuple(found), seed, images, prompts)

    def __getitem__(self, step: int) -> Batch:
        """Make one batch; its `images` are features (B, *feature_shape)."""
        rng = np.random.default_rng((self.seed, step))
        features, parts = [], []
        for number in rng.integers(len(self.tiles), size=self.images):
            scene, place, tile = self.tiles[number]
            size, read, k = scene.model.size, tile.read, tile.scale
            placing = Affine(k, 0, read.col, 0, k, read.row)
            labels = _labels(place.learned, (size, size), placing)
            crop = Crop(np.empty((0, 0, 3), np.uint8), labels)  # the image is encoded already
            parts.append(objects(crop, self.prompts, rng))
            features.append(scene.store[tile])
        targets, clicks, boxes, weights = (
            torch.from_numpy(np.stack(part)) for part in zip(*parts, strict=True)
        )
        origins = torch.zeros(self.images, 2)
        images = torch.from_numpy(np.stack(features))
        return Batch(images, targets, clicks, boxes, weights, origins)


def _windows(place: Place, factor: int, size: int) -> list[Window]:
    """A window round the polygons of each block, its edges at multiples of `factor`."""
    middles = shapely.get_coordinates(shapely.point_on_surface(place.learned))
    blocks = np.floor(middles / place.block_px)
    height, width = place.frame.shape
    windows = []
    for block in np.unique(blocks, axis=0):
        own = place.learned[(blocks == block).all(1)]
        margin = CONTEXT * size * factor
        xmin, ymin, xmax, ymax = shapely.total_bounds(own).tolist()
        left, top = (max(0, int((v - margin) // factor) * factor) for v in (xmin, ymin))
        right, bottom = (-(-int(v + margin + 1) // factor) * factor for v in (xmax, ymax))
        windows.append(Window.spanning(left, top, min(right, width), min(bottom, height)))
    return windows


def _scene(place: Place, raster: Raster, stretch: Stretch, window: Window, factor: int) -> Scene:
    """A window of a place as a scene to crop from; ground that is hidden is filled."""
    chip = raster.read(window, stretch.bands, factor)
    image = np.ascontiguousarray(np.moveaxis(stretch(chip), 0, 2))
    shape = image.shape[:2]
    placing = Affine(factor, 0, window.col, 0, factor, window.row)
    if not place.hidden.is_empty:
        hidden = rasterize([place.hidden], shape, transform=placing, all_touched=True)
        image[hidden > 0] = FILL
    return make_scene("own", image, _labels(place.learned, shape, placing))


def _labels(polygons: Polygons, shape: tuple[int, int], placing: Affine) -> Labels:
    """Polygons (N,) burnt into an image: 1 to N, the smaller over the larger."""
    order = np.argsort(-shapely.area(polygons), kind="stable")
    left, top, (height, width) = placing.c, placing.f, shape
    right, bottom = left + placing.a * width, top + placing.e * height
    seen = shapely.intersects(polygons, shapely.box(left, top, right, bottom))
    shapes = [(polygons[i], int(i) + 1) for i in order if seen[i]]
    if not shapes:
        return np.zeros(shape, np.int32)
    labels: Labels = rasterize(shapes, shape, transform=placing, dtype="int32")
    return labels


def _tiles_for(scene: Encoded, polygon: BaseGeometry) -> list[Tile]:
    """The tile in which the box of a polygon would be decoded, and that at the next scale."""
    bounds: tuple[float, float, float, float] = polygon.bounds
    side = max(bounds[2] - bounds[0], bounds[3] - bounds[1])
    wanted = side / (FILLS_AT_MOST * scene.model.size)
    fitting = [grid for grid in scene.store.grids if grid.scale >= wanted]
    return [grid.locate(bounds) for grid in (fitting or scene.store.grids[-1:])[:2]]
