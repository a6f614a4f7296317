"""Many rasters on one grid as one raster: a VRT, which names them and holds no pixels itself."""

import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags

from tiles.errors import RasterError
from tiles.frame import Frame
from tiles.level import open_dataset
from tiles.raster import Raster
from tiles.window import Window

_OFF_GRID_PX = 0.01  # what corners may miss the grid by: transforms are rounded
_TYPES = {
    "uint8": "Byte", "int8": "Int8", "uint16": "UInt16", "int16": "Int16", "uint32": "UInt32",
    "int32": "Int32", "uint64": "UInt64", "int64": "Int64", "float32": "Float32",
    "float64": "Float64",
}  # fmt: skip  # numpy's names and GDAL's


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """One of the rasters.

    Attributes:
        source: as the user named it.
        name: as GDAL opens it.
        frame: of its pixels.
        bands: data type of each, alpha included.
        alpha: which bands are alpha.
        nodata: value of each band, if it has one.
        colors: what each band shows.
        descriptions: the name of each band, where it has one.
        block: (height, width) of the pieces it is stored in.
        overviews: pixels per pixel of each overview.
        masked: whether a mask, alpha or nodata may hide pixels.
    """

    source: str
    name: str
    frame: Frame
    bands: tuple[str, ...]
    alpha: tuple[bool, ...]
    nodata: tuple[float | None, ...]
    colors: tuple[str, ...]
    descriptions: tuple[str | None, ...]
    block: tuple[int, int]
    overviews: tuple[int, ...]
    masked: bool

    @classmethod
    def of(cls, source: str | Path) -> Self:
        with Raster.open(source) as raster:
            frame, place, overviews = raster.frame, raster.source, raster.overviews
        with open_dataset(place) as file:
            if ColorInterp.palette in file.colorinterp:
                raise RasterError(
                    f"Raster {source}: colours from a palette (expected values of their own). "
                    f"Expand it first: `gdal_translate -expand rgb {source} expanded.tif`."
                )
            return cls(
                str(source),
                file.files[0] if "://" in place else place,
                frame,
                tuple(file.dtypes),
                tuple(color == ColorInterp.alpha for color in file.colorinterp),
                tuple(file.nodatavals),
                tuple(color.name.capitalize() for color in file.colorinterp),
                tuple(file.descriptions),
                file.block_shapes[0],
                overviews,
                MaskFlags.all_valid not in file.mask_flag_enums[0],
            )

    def window_on(self, frame: Frame) -> Window:
        """Where it lies on a grid.

        Raises:
            RasterError: Its pixels are not pixels of the grid.
        """
        height, width = self.frame.shape
        corners = frame.to_pixel(self.frame.to_world([[0, 0], [width, 0], [0, height]]))
        sides = corners[1:] - corners[0]
        if np.abs(sides - [[width, 0], [0, height]]).max() > _OFF_GRID_PX:
            found, wanted = (
                ", ".join(f"{number:.9g}" for number in tuple(one.transform)[:6] if number)
                for one in (self.frame, frame)
            )
            raise RasterError(
                f"Raster {self.source}: pixels of another size or turn, by its transform {found} "
                f"(expected those of {wanted}). Warp it to that resolution first."
            )
        col, row = np.rint(corners[0]).astype(int).tolist()
        off = np.abs(corners[0] - (col, row)).max()
        if off > _OFF_GRID_PX:
            raise RasterError(
                f"Raster {self.source}: {off:.2f} px off the first raster's grid (expected less "
                f"than {_OFF_GRID_PX}). Warp it to that grid first: `gdalwarp -tap`."
            )
        return Window(col, row, width, height)


def write_mosaic(path: str | Path, sources: Sequence[str | Path]) -> None:
    """Write a VRT that shows many rasters as one, wherever they lie on its grid.

    Where rasters overlap the later one is seen, as far as it has data. Ground that none of them
    covers has no data. Rasters on this disk are named from the VRT's folder, so that both can be
    moved together. An overview that all of them have serves the whole if its pixels do not straddle
    rasters, and the whole is a multiple of them wide and high.

    Args:
        path: of the VRT, a file that does not exist yet.
        sources: of the rasters, as `Raster.open` takes them, at least one.

    Raises:
        RasterError: If one cannot be opened; if CRS, pixel size, grid, bands, data types or nodata
            are not those of the first; or if there is such a file already.
        ValueError: If there are no sources.
    """
    path = Path(path)
    if not sources:
        raise ValueError("Mosaic: no rasters (expected at least one).")
    if path.exists():
        raise RasterError(
            f"Raster {path}: exists already (expected a new file). Choose another name."
        )
    parts = [_Part.of(source) for source in sources]
    first = parts[0]
    for part in parts[1:]:
        _check_alike(part, first)
    windows = [part.window_on(first.frame) for part in parts]
    whole = Window.spanning(
        min(window.col for window in windows),
        min(window.row for window in windows),
        max(window.right for window in windows),
        max(window.bottom for window in windows),
    )
    places = [Window(w.col - whole.col, w.row - whole.row, w.width, w.height) for w in windows]
    document = _document(first, first.frame.crop(whole), parts, places, path)
    indent(document)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        ElementTree(document).write(draft, encoding="utf-8")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _check_alike(part: _Part, first: _Part) -> None:
    """Raise an error unless a raster can be one with the first."""
    for what, found, wanted, cure in (
        ("CRS", part.frame.crs.to_string(), first.frame.crs.to_string(), "Warp it first"),
        ("bands", part.bands, first.bands, "Convert it first"),
        ("alpha bands", part.alpha, first.alpha, "Add or drop one first"),
        ("nodata", part.nodata, first.nodata, "Set it first: `gdal_edit.py -a_nodata ...`"),
    ):
        if repr(found) != repr(wanted):  # NaN is NaN
            raise RasterError(
                f"Raster {part.source}: {what} {_words(found)} (expected {_words(wanted)}, as of "
                f"{first.source}). {cure}."
            )


def _words(value: Any) -> str:  # noqa: ANN401  # whatever is compared
    return value if isinstance(value, str) else ", ".join(map(str, value))


def _document(
    first: _Part, frame: Frame, parts: Sequence[_Part], places: Sequence[Window], path: Path
) -> Element:
    """The VRT, https://gdal.org/drivers/raster/vrt.html."""
    height, width = frame.shape
    root = Element("VRTDataset", rasterXSize=str(width), rasterYSize=str(height))
    SubElement(root, "SRS").text = frame.crs.to_wkt()
    a, b, c, d, e, f, *_ = frame.transform
    SubElement(root, "GeoTransform").text = ", ".join(map(repr, (c, a, b, f, d, e)))
    if overviews := _overviews(frame, parts, places):
        SubElement(root, "OverviewList", resampling="average").text = " ".join(map(str, overviews))
    by_mask = not any(first.alpha) and first.nodata[0] is None
    all_valid = not any(part.masked for part in parts) and _cover(places, frame.shape)
    for band, dtype in enumerate(first.bands, start=1):
        own = SubElement(root, "VRTRasterBand", dataType=_TYPES[dtype], band=str(band))
        nodata, description = first.nodata[band - 1], first.descriptions[band - 1]
        if description:
            SubElement(own, "Description").text = description
        if nodata is not None:
            SubElement(own, "NoDataValue").text = repr(nodata)
        SubElement(own, "ColorInterp").text = first.colors[band - 1]
        for source in _sources(own, parts, places, path, str(band)):
            if first.alpha[band - 1]:
                SubElement(source, "NODATA").text = "0"
            elif nodata is not None:
                SubElement(source, "NODATA").text = repr(nodata)
            else:
                SubElement(source, "UseMaskBand").text = "true"
    if by_mask and not all_valid:  # a mask that hides nothing would keep overviews from being used
        own = SubElement(SubElement(root, "MaskBand"), "VRTRasterBand", dataType="Byte")
        for source in _sources(own, parts, places, path, "mask,1"):
            SubElement(source, "NODATA").text = "0"
    return root


def _cover(places: Sequence[Window], shape: tuple[int, int]) -> bool:
    """Whether rasters lie everywhere on the whole."""
    rows = np.unique([0, shape[0], *(edge for w in places for edge in (w.row, w.bottom))])
    cols = np.unique([0, shape[1], *(edge for w in places for edge in (w.col, w.right))])
    covered = np.zeros((len(rows) - 1, len(cols) - 1), bool)
    for place in places:
        top, bottom = np.searchsorted(rows, (place.row, place.bottom))
        left, right = np.searchsorted(cols, (place.col, place.right))
        covered[top:bottom, left:right] = True
    return bool(covered.all())


def _overviews(frame: Frame, parts: Sequence[_Part], places: Sequence[Window]) -> list[int]:
    """Overviews that every raster has and whose pixels make up the whole; GDAL cuts off others."""
    height, width = frame.shape
    shared = set(parts[0].overviews).intersection(*(part.overviews for part in parts))
    return sorted(
        factor
        for factor in shared
        if height % factor == width % factor == 0
        and all(place.col % factor == place.row % factor == 0 for place in places)
    )


def _sources(
    own: Element, parts: Sequence[_Part], places: Sequence[Window], path: Path, band: str
) -> Iterator[Element]:
    """A source for each raster, in a band of the VRT; what counts as no data is left to say."""
    for part, place in zip(parts, places, strict=True):
        source = SubElement(own, "ComplexSource")
        relative, name = _from_folder(part.name, path.parent)
        SubElement(source, "SourceFilename", relativeToVRT=str(int(relative))).text = name
        SubElement(source, "SourceBand").text = band
        height, width = map(str, part.frame.shape)
        about = {
            "RasterXSize": width, "RasterYSize": height,
            "DataType": "Byte" if "mask" in band else _TYPES[part.bands[int(band) - 1]],
            "BlockXSize": str(part.block[1]), "BlockYSize": str(part.block[0]),
        }  # fmt: skip
        SubElement(source, "SourceProperties", about)
        shape = {"xSize": width, "ySize": height}
        SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0"} | shape)
        corner = {"xOff": str(place.col), "yOff": str(place.row)}
        SubElement(source, "DstRect", corner | shape)
        yield source


def _from_folder(name: str, folder: Path) -> tuple[bool, str]:
    """A name as it is called from a folder, and whether it is a path from there."""
    if not Path(name).exists():
        return False, name
    try:
        return True, os.path.relpath(Path(name).resolve(), folder.resolve())
    except ValueError:  # another drive of Windows
        return False, str(Path(name).resolve())
