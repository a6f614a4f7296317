"""Writes a raster and the polygons on it as a training set for other programs."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import geopandas
import numpy as np
import rasterio
import shapely
from PIL import Image

from geosam.drafts import draft
from geosam.errors import LabelError, OutputError, OutputExists
from geosam.exchange.coco import annotations
from geosam.exchange.patches import SMALLEST_AREA_PX, Labelled, Patch, cut_patches
from geosam.exchange.yolo import data_yaml, labels
from geosam.labelled import kinds_of, on_raster, read_polygons
from geosam.protocol import Progress
from geosam.recipe import Stretch
from tiles import Raster

Format: TypeAlias = Literal["coco", "yolo", "chips"]


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Attributes:
        folder: the training set.
        images: number of images, by split.
        pieces: number of labels, by split.
        cut: how many labels an image's edge cut.
        notes: polygons or rests of them that were left out, or cut at the raster's edge, by reason.
    """

    folder: Path
    images: dict[str, int]
    pieces: dict[str, int]
    cut: int
    notes: dict[str, int]


def export(  # noqa: PLR0913  # each is a thing people set
    raster: str | Path,
    polygons: str | Path | geopandas.GeoDataFrame,
    folder: str | Path,
    *,
    format: Format,  # the word for it
    class_column: str | None = None,
    size: int = 512,
    overlap: int = 0,
    val_share: float = 0.2,
    bands: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Write the parts of a raster that show polygons, and the polygons, into a new folder.

    ======  ====================================================================================
    coco    `images/SPLIT/*.png` and `annotations/SPLIT.json` (see `exchange.coco`)
    yolo    `images/SPLIT/*.png`, `labels/SPLIT/*.txt` and `data.yaml` (see `exchange.yolo`)
    chips   `images/SPLIT/*.tif`, GeoTIFFs with the raster's own values, and `polygons.parquet`
            with the columns row, class, chip, split and cut
    ======  ====================================================================================

    PNGs show what a model sees: three bands, stretched to bytes. SPLIT is train or val, by place:
    whole blocks of ground are one or the other (see `exchange.patches`). Polygons are cut at the
    images' edges, and what is cut says so, except in YOLO, which cannot.

    Args:
        raster: any raster that GDAL reads.
        polygons: a vector file or a table, in any CRS.
        folder: to be made; it appears when it is whole.
        format: see above.
        class_column: column that holds the class; None: one class, "object".
        size: side of an image, px; less only where the ground of a split is smaller.
        overlap: of neighbouring images of one block, px.
        val_share: share of the polygons that val holds, about; 0: no val.
        bands: of the PNGs, see `Stretch.of`; of chips: which ones, None being all.
        progress: called with (done, total) images.

    Raises:
        LabelError: the polygons cannot be used, or lie at one place alone.
        OutputExists: the folder exists.
        OutputError: it cannot be made.
        RasterError, BandError: the raster cannot be used.
        ValueError: a number or the format makes no sense.
    """
    folder = Path(folder)
    _check(folder, format, size, overlap, val_share)
    table = read_polygons(polygons)
    kind_of_all = "object" if class_column is None else None
    notes: Counter[str] = Counter()
    with Raster.open(raster) as opened:
        labelled = []
        kinds = kinds_of(table, class_column, kind_of_all)
        for row, (geometry, kind) in enumerate(zip(table.geometry, kinds, strict=True), start=1):
            shape, note = on_raster(geometry, table.crs, opened.frame, smallest_px=SMALLEST_AREA_PX)
            notes[note] += bool(note)
            if shape is not None:
                labelled.append(Labelled(row, kind, shape))
        if not labelled:
            reasons = ", ".join(f"{n} {reason}" for reason, n in (+notes).items())
            raise LabelError(f"Polygons: none on {raster} ({reasons or 'no rows'}). Check both.")
        patches = cut_patches(
            opened.window, labelled, stem=Path(str(raster)).stem, size=size, overlap=overlap,
            val_share=val_share, notes=notes,
        )  # fmt: skip
        classes = sorted({polygon.kind for polygon in labelled})
        with draft(folder) as place:
            _write_images(opened, patches, place, format, bands, progress)
            _write_labels(opened, patches, place, format, classes)
    pieces = [(patch.split, piece) for patch in patches for piece in patch.pieces]
    return Exported(
        folder,
        dict(Counter(patch.split for patch in patches)),
        dict(Counter(split for split, _ in pieces)),
        sum(piece.cut for _, piece in pieces),
        dict(+notes),
    )


def _check(folder: Path, form: str, size: int, overlap: int, val_share: float) -> None:
    if form not in get_args(Format):
        raise ValueError(f"format: {form!r} (expected one of {', '.join(get_args(Format))}).")
    if not 0 <= overlap < size:
        raise ValueError(f"overlap: {overlap} (expected 0 to less than the size, {size}).")
    if not 0 <= val_share < 1:
        raise ValueError(f"val_share: {val_share} (expected 0 to less than 1).")
    if folder.exists():
        raise OutputExists(f"{folder}: exists already (expected a new folder). Choose another.")
    if not folder.parent.is_dir():
        raise OutputError(f"{folder}: no folder {folder.parent} (expected it to exist). Create it.")


def _write_images(
    raster: Raster,
    patches: Sequence[Patch],
    folder: Path,
    form: Format,
    bands: Sequence[int] | None,
    progress: Progress | None,
) -> None:
    stretch = None if form == "chips" else Stretch.of(raster, bands)
    for done, patch in enumerate(patches, start=1):
        path = folder / "images" / patch.split / patch.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if stretch is None:
            _write_geotiff(raster, patch, path.with_name(f"{patch.name}.tif"), bands)
        else:
            image = stretch(raster.read(patch.window, stretch.bands))
            picture = Image.fromarray(np.ascontiguousarray(np.moveaxis(image, 0, 2)))
            picture.save(path.with_name(f"{patch.name}.png"))
        if progress:
            progress(done, len(patches))


def _write_geotiff(raster: Raster, patch: Patch, path: Path, bands: Sequence[int] | None) -> None:
    """A patch with the raster's values; where it has no data, a mask says so."""
    chip = raster.read(patch.window, bands)
    profile = {
        "driver": "GTiff", "count": len(chip.data), "height": patch.window.height,
        "width": patch.window.width, "dtype": chip.data.dtype.name, "compress": "deflate",
        "crs": chip.frame.crs.to_wkt(), "transform": chip.frame.transform,
    }  # fmt: skip
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **profile) as file:
        file.write(chip.data)
        if not chip.valid.all():
            file.write_mask(chip.valid)


def _write_labels(
    raster: Raster, patches: Sequence[Patch], folder: Path, form: Format, classes: Sequence[str]
) -> None:
    splits = sorted({patch.split for patch in patches})
    if form == "chips":
        _table(raster, patches).to_parquet(folder / "polygons.parquet", index=False)
        return
    if form == "yolo":
        (folder / "data.yaml").write_text(data_yaml(classes, splits))
        for patch in patches:
            path = folder / "labels" / patch.split / f"{patch.name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(labels(patch, classes))
        return
    (folder / "annotations").mkdir()
    for split in splits:
        own = [patch for patch in patches if patch.split == split]
        content = annotations(own, classes, raster.frame, f"images/{split}")
        (folder / "annotations" / f"{split}.json").write_text(json.dumps(content))


def _table(raster: Raster, patches: Sequence[Patch]) -> geopandas.GeoDataFrame:
    rows, shapes = [], []
    for patch in patches:
        frame = raster.frame.crop(patch.window)
        for piece in patch.pieces:
            rows.append((piece.row, piece.kind, patch.name, patch.split, piece.cut))
            shapes.append(shapely.transform(piece.shape, frame.to_world))
    columns = dict(
        zip(
            ("row", "class", "chip", "split", "cut"),
            map(list, zip(*rows, strict=True)),
            strict=True,
        )
    )
    return geopandas.GeoDataFrame(columns, geometry=shapes, crs=raster.frame.crs)
