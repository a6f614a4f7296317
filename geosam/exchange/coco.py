"""COCO instances: annotation files written and read.

Coordinates are px of the image, (0, 0) being the corner of the first pixel. An outline without
holes is a list of rings; one with holes is run lengths (columns first), as the format has no holes.
Images say where they lie in two fields of our own, `info.crs` (WKT) and `transform` of each image;
an annotation's `attributes` say which polygon it is of and whether the image's edge cut it. Other
programs ignore them.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from pyproj import CRS
from pyproj.exceptions import CRSError
from rasterio.features import rasterize, shapes
from shapely import MultiPolygon, Polygon
from shapely.geometry import shape as shape_of

from geosam.errors import LabelError
from geosam.exchange.patches import Patch, Piece, polygonal
from tiles import Frame, Raster

_DIGITS = 3  # of px


def annotations(
    patches: Sequence[Patch], kinds: Sequence[str], frame: Frame, folder: str
) -> dict[str, Any]:
    """The annotation file of one split as JSON values.

    Args:
        patches: of the split.
        kinds: all classes; their ids count from 1.
        frame: of the raster.
        folder: of the images, relative to what other programs take as the images' root.
    """
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for number, patch in enumerate(patches, start=1):
        own = frame.crop(patch.window)
        height, width = patch.window.shape
        images.append(
            {
                "id": number, "file_name": f"{folder}/{patch.name}.png", "width": width,
                "height": height, "transform": list(own.transform)[:6],
            }
        )  # fmt: skip
        for piece in patch.pieces:
            entry = _entry(piece, kinds, patch.window.shape)
            objects.append({"id": len(objects) + 1, "image_id": number, **entry})
    return {
        "info": {"description": "Exported by geosam", "crs": frame.crs.to_wkt()},
        "images": images,
        "categories": [{"id": i, "name": kind} for i, kind in enumerate(kinds, start=1)],
        "annotations": objects,
    }


def import_coco(
    paths: str | Path | Iterable[str | Path], *, raster: str | Path | None = None
) -> geopandas.GeoDataFrame:
    """Polygons on the ground from COCO annotation files.

    Pieces of one polygon, as an export cuts them at its images' edges, are joined again. Outlines
    given as run lengths follow the pixels' edges.

    Args:
        paths: one file or several, such as those of train and of val.
        raster: on which the files' only image lies pixel by pixel; None: images say themselves
            where they lie, as those of an export do.

    Returns:
        Polygons with the columns `class`, `image` (the first that shows it) and `row` (of the
        polygon in the table that was exported; 0 where that is not known), in order of row, then
        of annotation.

    Raises:
        LabelError: a file is no COCO file, its images do not say where they lie, do not fit the
            raster, or lie in several CRSs.
        RasterError: the raster cannot be read.
    """
    files = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    found: list[_Found] = []
    crs: CRS | None = None
    for path in files:
        content = _read(path)
        places = _places(path, content, raster)
        own_crs = next(iter(places.values())).crs
        if crs is not None and own_crs != crs:
            raise LabelError(
                f"{path}: in {own_crs.name} (expected {crs.name}, as the files before). Import "
                "the files of each CRS on their own."
            )
        crs = own_crs
        found += _objects(path, content, places)
    if crs is None:
        raise LabelError("COCO files: none (expected at least one).")
    rows = _joined(found)
    columns = {
        "class": [row.kind for row in rows],
        "image": [row.image for row in rows],
        "row": [row.row for row in rows],
    }
    return geopandas.GeoDataFrame(columns, geometry=[row.shape for row in rows], crs=crs)


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    row: int
    kind: str
    image: str
    shape: Polygon | MultiPolygon


def _entry(piece: Piece, kinds: Sequence[str], shape: tuple[int, int]) -> dict[str, Any]:
    xmin, ymin, xmax, ymax = piece.shape.bounds
    parts = shapely.get_parts(piece.shape)
    segmentation: object = [_flat(part) for part in parts]
    if any(part.interiors for part in parts):
        burnt = rasterize([piece.shape], shape, dtype="uint8") > 0
        segmentation = {"size": list(shape), "counts": run_lengths(burnt)}
    return {
        "category_id": kinds.index(piece.kind) + 1,
        "segmentation": segmentation,
        "bbox": [round(v, _DIGITS) for v in (xmin, ymin, xmax - xmin, ymax - ymin)],
        "area": round(float(piece.shape.area), _DIGITS),
        "iscrowd": 0,
        "attributes": {"row": piece.row, "cut": piece.cut},
    }


def _flat(part: Polygon) -> list[float]:
    ring = shapely.get_coordinates(part.exterior)[:-1]
    flat: list[float] = ring.round(_DIGITS).ravel().tolist()
    return flat


def run_lengths(mask: npt.NDArray[np.bool_]) -> list[int]:
    """Lengths of the runs of a mask (H, W) down its columns, beginning with one of False."""
    values = np.concatenate([[False], mask.ravel(order="F")])
    changes = np.flatnonzero(values[1:] != values[:-1])
    edges = np.concatenate([[0], changes, [mask.size]])
    lengths: list[int] = np.diff(edges).tolist()
    return lengths


def mask_of(counts: Sequence[int], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The mask that run lengths describe."""
    values = np.arange(len(counts)) % 2 == 1
    mask: npt.NDArray[np.bool_] = np.repeat(values, counts).reshape(shape, order="F")
    return mask


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise LabelError(f"{path}: {error} (expected a COCO file).") from error
    wanted = ("images", "annotations", "categories")
    lacking = [name for name in wanted if not isinstance(content, dict) or name not in content]
    if lacking:
        raise LabelError(f"{path}: no {lacking[0]!r} (expected a COCO file of instances).")
    if not content["images"]:
        raise LabelError(f"{path}: no images (expected at least one).")
    return dict(content)


def _places(
    path: Path, content: Mapping[str, Any], raster: str | Path | None
) -> dict[object, Frame]:
    """Where each image lies, by its id."""
    images = content["images"]
    try:
        if raster is None:
            crs = CRS.from_user_input(content.get("info", {})["crs"])
            return {
                image["id"]: Frame(
                    (image["height"], image["width"]), Affine(*image["transform"]), crs
                )
                for image in images
            }
        size = (images[0]["height"], images[0]["width"])
    except (KeyError, TypeError, ValueError, CRSError) as error:
        raise LabelError(
            f"{path}: images that do not say where they lie, {error!r} (expected `info.crs` and "
            "a `transform` each, as an export of geosam has). Name the raster that the only image "
            "shows."
        ) from error
    with Raster.open(raster) as opened:
        if len(images) != 1 or size != opened.frame.shape:
            raise LabelError(
                f"{path}: {len(images)} images, the first of {size[1]} x {size[0]} px (expected "
                f"one of the size of {raster}, {opened.frame.shape[1]} x {opened.frame.shape[0]})."
            )
        return {images[0]["id"]: opened.frame}


def _objects(
    path: Path, content: Mapping[str, Any], places: Mapping[object, Frame]
) -> Iterable[_Found]:
    files = {image["id"]: str(image.get("file_name", "")) for image in content["images"]}
    for number, entry in enumerate(content["annotations"], start=1):
        try:
            names = {category["id"]: category["name"] for category in content["categories"]}
            frame = places[entry["image_id"]]
            shape = _shape(entry["segmentation"], frame.shape)
            row = int((entry.get("attributes") or {}).get("row", 0))
            kind, image = str(names[entry["category_id"]]), files[entry["image_id"]]
        except (KeyError, TypeError, ValueError) as error:
            raise LabelError(
                f"{path}, annotation {number}: {error!r} (expected an image, a category and a "
                "segmentation of rings or plain run lengths)."
            ) from error
        if shape.is_empty:
            raise LabelError(f"{path}, annotation {number}: no area (expected an outline).")
        yield _Found(row, kind, image, shapely.transform(shape, frame.to_world))


def _shape(segmentation: Any, shape: tuple[int, int]) -> Polygon | MultiPolygon:  # noqa: ANN401
    if isinstance(segmentation, dict):
        if isinstance(segmentation["counts"], str):
            raise TypeError("compressed run lengths")
        mask = mask_of(segmentation["counts"], shape)
        traced = shapes(mask.astype(np.uint8), mask)
        return polygonal(shapely.union_all([shape_of(ring) for ring, _ in traced]))
    parts = [Polygon(np.array(ring, np.float64).reshape(-1, 2)) for ring in segmentation]
    return polygonal(shapely.union_all([shapely.make_valid(part) for part in parts]))


def _joined(found: Sequence[_Found]) -> list[_Found]:
    """One polygon for all pieces with the same row, and all that have none."""
    pieces: dict[int, list[_Found]] = {}
    for piece in found:
        if piece.row:
            pieces.setdefault(piece.row, []).append(piece)
    joined = []
    for row, own in sorted(pieces.items()):
        shape = polygonal(shapely.union_all([piece.shape for piece in own]))
        joined.append(_Found(row, own[0].kind, own[0].image, shape))
    return joined + [piece for piece in found if not piece.row]
