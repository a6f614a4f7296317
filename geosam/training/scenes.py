"""Labelled scenes in memory, each with a pyramid, from a folder of training data.

The folder holds `NAME.webp` with `NAME.instances.png` (uint16, 0 = unlabelled) and GeoTIFF mosaics
with GeoPackage footprints of the same name, one sub-folder a kind.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Image8 = NDArray[np.uint8]
Labels = NDArray[np.int32]

SMALLEST_PX = 5  # longer side below which an instance is no training target


@dataclass(frozen=True, slots=True)
class Scene:
    """An image and its instances.

    Attributes:
        kind: class of the objects, the name of the folder.
        pyramid: images (H, W, 3), each half the size of the one before.
        labels: (H, W), 0 where nothing is labelled.
        boxes: (N, 4) px extents (xmin, ymin, xmax, ymax) of the instances worth a prompt.
        ids: (N,) label values.
    """

    kind: str
    pyramid: tuple[Image8, ...]
    labels: Labels
    boxes: NDArray[np.int64] = field(repr=False)
    ids: NDArray[np.int64] = field(repr=False)


def make_scene(kind: str, image: Image8, labels: Labels) -> Scene:
    """Scene with its pyramid and instance table."""
    boxes, ids = [], []
    for number, slices in enumerate(ndimage.find_objects(labels), start=1):
        if slices is None:
            continue
        rows, cols = slices
        if max(rows.stop - rows.start, cols.stop - cols.start) >= SMALLEST_PX:
            boxes.append((cols.start, rows.start, cols.stop, rows.stop))
            ids.append(number)
    pyramid = [image]
    while min(pyramid[-1].shape[:2]) > 128:
        height, width = pyramid[-1].shape[:2]
        half = cv2.resize(
            pyramid[-1], ((width + 1) // 2, (height + 1) // 2), interpolation=cv2.INTER_AREA
        )
        pyramid.append(half.astype(np.uint8))
    return Scene(kind, tuple(pyramid), labels, np.array(boxes).reshape(-1, 4), np.array(ids))


def read_scenes(folder: Path) -> list[Scene]:
    """All labelled scenes below `folder`, sorted by name; scenes without instances are left out."""
    paths = sorted(folder.glob("*/*.instances.png")), sorted(folder.glob("*/*.tif"))
    with ThreadPoolExecutor() as pool:
        scenes = [*pool.map(read_labelled, paths[0]), *pool.map(read_mosaic, paths[1])]
    return [scene for scene in scenes if len(scene.ids)]


def read_labelled(path: Path) -> Scene:
    """The scene of a label image NAME.instances.png and of NAME.webp beside it."""
    labels = np.array(Image.open(path)).astype(np.int32)
    image = read_image(path.with_name(path.name.replace(".instances.png", ".webp")))
    return make_scene(path.parent.name, image, labels)


def read_mosaic(path: Path) -> Scene:
    """The scene of a GeoTIFF and of the footprints in the GeoPackage beside it."""
    import geopandas  # GDAL is not to be had wherever nano is trained
    import rasterio
    from rasterio.features import rasterize

    with rasterio.open(path) as source:
        image = np.moveaxis(source.read((1, 2, 3)), 0, 2)
        footprints = geopandas.read_file(path.with_suffix(".gpkg")).to_crs(source.crs)
        shapes = [(shape, i + 1) for i, shape in enumerate(footprints.geometry)]
        labels = rasterize(shapes, image.shape[:2], transform=source.transform, dtype="int32")
    return make_scene(path.parent.name, np.ascontiguousarray(image), labels)


def read_textures(folder: Path) -> list[Image8]:
    """Unlabelled images for composites."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(read_image, sorted(folder.glob("textures/*.webp"))))


def read_image(path: Path) -> Image8:
    """An RGB image (H, W, 3)."""
    return np.array(Image.open(path).convert("RGB"))
