"""What a network learns from polygons on a raster: crops of it, or tiles that were encoded before.

nano's encoder takes a fifth of a step's time, so its crops are made and encoded anew each step,
turned, scaled and recoloured. A vision transformer's takes nearly all of it: such a network learns
on the features of the raster's own tiles, which are encoded once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
import torch
from affine import Affine
from rasterio.features import rasterize
from shapely.geometry.base import BaseGeometry
from torch.utils.data import Dataset

from geosam.decode import CLICK_SCALES, FILLS_AT_MOST
from geosam.protocol import FILL, Progress
from geosam.recipe import Stretch
from geosam.scene import Scene as Encoded
from geosam.training.batches import Batch, objects
from geosam.training.crops import Crop, cut, recolour
from geosam.training.places import Place, Polygons
from geosam.training.scenes import Labels, Scene, make_scene
from tiles import Raster, Tile, Window

AS_DECODED = 0.7  # share of the crops at a scale at which clicks are decoded
RECOLOURED = 0.5  # share of the crops
JITTER = 0.1  # spread of that scale's logarithm
CONTEXT = 0.25  # of a block's side, seen round the polygons of one


@dataclass(frozen=True, slots=True)
class PlaceSampler:
    """Draws crops of places; most at the scales at which clicks are decoded.

    Only so can a network learn how large objects are in the images of these places, which a lone
    click does not say.

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
                for window in _windows(place, factor):
                    scene = _scene(place, raster, stretch, window, factor)
                    if len(scene.ids):
                        scenes.append(scene)
                        reductions.append(factor)
        return cls(tuple(scenes), tuple(reductions))

    def draw(self, size: int, rng: np.random.Generator) -> Crop:
        """One crop of side `size`, half of them recoloured; every draw from `rng`."""
        counts = np.array([len(scene.ids) for scene in self.scenes]) ** 0.5
        chosen = rng.choice(len(counts), p=counts / counts.sum())
        scale = None
        if rng.random() < AS_DECODED:
            tile_scale = rng.choice(CLICK_SCALES) * np.exp(rng.normal(0, JITTER))
            scale = float(self.reductions[chosen] / tile_scale)
        crop = cut(self.scenes[chosen], size, rng, scale)
        return Crop(recolour(crop.image, rng), crop.labels) if rng.random() < RECOLOURED else crop


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


def _windows(place: Place, factor: int) -> list[Window]:
    """A window round the polygons of each block, its edges at multiples of `factor`."""
    middles = shapely.get_coordinates(shapely.point_on_surface(place.learned))
    blocks = np.floor(middles / place.block_px)
    height, width = place.frame.shape
    windows = []
    for block in np.unique(blocks, axis=0):
        own = place.learned[(blocks == block).all(1)]
        margin = CONTEXT * place.block_px
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
