"""Classical tools that answer the same prompts, each in a crop of 256 px round them.

The crop's scale suits the class, a help that geosam does not get. Each tool has its own settings,
the same for all classes, and its own clicks: they are simulated from its own errors.
"""

from collections.abc import Callable

import cv2
import geopandas
import numpy as np
from affine import Affine
from rasterio.features import shapes
from shapely.geometry import shape as shape_of
from shapely.ops import unary_union
from skimage.segmentation import felzenszwalb, random_walker

from geosam.prompts import Prompt, PromptSet
from tiles import Frame

SIDE = 256
CLASS_SCALE = {"buildings": 0.4, "fields": 0.7, "water": 1.0, "trees": 2.0}  # crop px per image px
GRABCUT_ROUNDS = 5
BOX_FILLS_PX = 200  # of the crop, by GrabCut's box at most
FLOOD_TOLERANCE = 20  # grey levels
WALKER_SEED_PX = 3  # radius
WALKER_SIDE = 128  # a larger crop takes seconds a click

Tool = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def grabcut(crop: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Foreground after 5 rounds, the middle third of the box being certain.

    Without that it finds little or nothing.
    """
    xmin, ymin, xmax, ymax = np.rint(box).astype(int)
    rows, cols = slice(ymin, max(ymax, ymin + 1)), slice(xmin, max(xmax, xmin + 1))
    mask = np.full(crop.shape[:2], cv2.GC_BGD, np.uint8)
    mask[rows, cols] = cv2.GC_PR_FGD
    inner = [
        (s.start + (s.stop - s.start) // 3, s.stop - (s.stop - s.start) // 3) for s in (rows, cols)
    ]
    mask[slice(*inner[0]), slice(*inner[1])] = cv2.GC_FGD
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(crop, mask, None, *models, GRABCUT_ROUNDS, cv2.GC_INIT_WITH_MASK)
    return np.isin(mask, (cv2.GC_FGD, cv2.GC_PR_FGD))


def felzenszwalb_regions(crop: np.ndarray, cells: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The regions that hold a click on the object.

    A click beside it in one of them is ignored, as the tool cannot divide a region: to give the
    region up would lose the object.
    """
    regions = felzenszwalb(crop, scale=200, sigma=0.8, min_size=50)
    chosen = cells[labels == 1]
    return np.isin(regions, regions[chosen[:, 1], chosen[:, 0]])


def flood_fill(crop: np.ndarray, cells: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What is joined to a click and at most 20 grey levels from its colour, in a smoothed crop.

    What a click beside the object floods is taken away, unless a click on it lies there too.
    """
    smooth = cv2.GaussianBlur(crop, (0, 0), 1.5)
    chosen, beside = cells[labels == 1], cells[labels == 0]
    mask = np.zeros(crop.shape[:2], bool)
    for cell in chosen:
        mask |= _flood(smooth, cell)
    for cell in beside:
        area = _flood(smooth, cell)
        if not area[chosen[:, 1], chosen[:, 0]].any():
            mask &= ~area
    return mask


def _flood(image: np.ndarray, cell: np.ndarray) -> np.ndarray:
    area = np.zeros((image.shape[0] + 2, image.shape[1] + 2), np.uint8)
    tolerance = (FLOOD_TOLERANCE,) * 3
    flags = 4 | (255 << 8) | cv2.FLOODFILL_FIXED_RANGE | cv2.FLOODFILL_MASK_ONLY
    cv2.floodFill(image, area, (int(cell[0]), int(cell[1])), 0, tolerance, tolerance, flags)
    return area[1:-1, 1:-1] > 0


def walk(crop: np.ndarray, cells: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """A random walker from discs round the clicks; the crop's border is background.

    Without the border, one click alone has nothing to walk against.
    """
    factor = WALKER_SIDE / SIDE
    small = cv2.resize(crop, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    seeds = np.full(small.shape[:2], 2, np.int32)
    seeds[1:-1, 1:-1] = 0
    rows, cols = np.mgrid[: small.shape[0], : small.shape[1]]
    for (col, row), label in zip(cells * factor, labels, strict=True):
        near = (cols - col) ** 2 + (rows - row) ** 2 <= WALKER_SEED_PX**2
        seeds[near] = 1 if label == 1 else 2
    if not (seeds == 1).any():
        return np.zeros(crop.shape[:2], bool)
    data = small / 255.0
    own = random_walker(data, seeds, mode="bf", channel_axis=2) == 1
    size = (crop.shape[1], crop.shape[0])
    return cv2.resize(own.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0


CLICK_TOOLS: dict[str, Tool] = {
    "Felzenszwalb": felzenszwalb_regions,
    "flood fill": flood_fill,
    "random walker": walk,
}


class Peer:
    """Answers prompts on one image with a tool, as `geosam.segment` would."""

    def __init__(self, image: np.ndarray, frame: Frame, kind: str, tool: Tool | None) -> None:
        self.image, self.frame, self.tool = image, frame, tool
        self.factor = CLASS_SCALE.get(kind, 1.0)

    def __call__(self, prompts: PromptSet, _multimask: bool) -> geopandas.GeoDataFrame:
        found = [self._box(p) if self.tool is None else self._clicks(p) for p in prompts]
        ids = [prompt.id for prompt in prompts]
        table = {"id": ids, "status": "ok", "score": np.nan}
        return geopandas.GeoDataFrame(table, geometry=found, crs=self.frame.crs)

    def _box(self, prompt: Prompt):
        xmin, ymin, xmax, ymax = self.frame.box_to_pixel(prompt.box)
        factor = min(self.factor, BOX_FILLS_PX / max(xmax - xmin, ymax - ymin))
        crop, left, top = self._crop((xmin + xmax) / 2, (ymin + ymax) / 2, factor)
        box = (np.array([xmin, ymin, xmax, ymax]) - (left, top, left, top)) * factor
        return self._polygon(grabcut(crop, box), left, top, factor)

    def _clicks(self, prompt: Prompt):
        points = self.frame.to_pixel(prompt.points)
        crop, left, top = self._crop(*points[0], self.factor)
        cells = np.floor((points - (left, top)) * self.factor).astype(int)
        height, width = crop.shape[:2]
        inside = ((cells >= 0) & (cells < (width, height))).all(1)
        mask = self.tool(crop, cells[inside], prompt.labels[inside])
        return self._polygon(mask, left, top, self.factor)

    def _crop(self, x: float, y: float, factor: float) -> tuple[np.ndarray, int, int]:
        height, width = self.image.shape[:2]
        half = SIDE / 2 / factor
        left, top = max(0, int(x - half)), max(0, int(y - half))
        right, bottom = min(width, int(x + half)), min(height, int(y + half))
        own = self.image[top:bottom, left:right]
        way = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        return cv2.resize(own, None, fx=factor, fy=factor, interpolation=way), left, top

    def _polygon(self, mask: np.ndarray, left: int, top: int, factor: float):
        to_map = self.frame.transform @ Affine.translation(left, top) @ Affine.scale(1 / factor)
        parts = [shape_of(ring) for ring, _ in shapes(mask.astype(np.uint8), mask, 4, to_map)]
        return unary_union(parts) if parts else None
