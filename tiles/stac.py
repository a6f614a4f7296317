"""STAC items: which raster one stands for."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit
from urllib.request import urlopen

import fsspec

from tiles.errors import RasterError

TIMEOUT_S = 30.0

_API_ITEM = re.compile(r"/collections/[^/]+/items/[^/]+$")
_SUFFIXES = (".json", ".geojson")
_RASTER_TYPES = ("image/tiff", "image/vnd.stac.geotiff", "image/jp2")
_OTHER_ROLES = {"thumbnail", "overview", "metadata"}


def raster_of(source: str) -> str:
    """The raster that a source means: of a STAC item one of its assets, else the source itself.

    Args:
        source: `item.json`, or `item.json#asset` to choose among several. An item on the web may
            also be called as APIs do, `.../collections/<id>/items/<id>`.

    Raises:
        RasterError: If an item cannot be read, or has no such asset, or several and none is named.
    """
    place, chosen = source, ""
    if not _may_be_item(place):
        place, _, chosen = source.rpartition("#")
        if not _may_be_item(place):
            return source
    item = _read(place)
    if item is None:
        return source
    assets = item.get("assets", {})
    rasters = [key for key, asset in assets.items() if _is_raster(asset)]
    if chosen and chosen not in assets:
        raise RasterError(
            f"STAC item {place}: no asset {chosen!r} (expected one of {_list(assets)}). Choose one."
        )
    if not chosen and len(rasters) != 1:
        raise RasterError(
            f"STAC item {place}: {len(rasters)} assets that are rasters (expected one). Choose "
            f"among {_list(rasters or assets)}, as in {place}#{(rasters or [*assets, 'name'])[0]}."
        )
    return _absolute(assets[chosen or rasters[0]]["href"], place)


def _may_be_item(place: str) -> bool:
    if "://" not in place:
        return place.lower().endswith(_SUFFIXES)
    url = urlsplit(place)
    is_api = url.scheme in ("http", "https") and bool(_API_ITEM.search(url.path))
    return not url.fragment and (is_api or url.path.lower().endswith(_SUFFIXES))


def _read(place: str) -> dict[str, Any] | None:
    """A STAC item; None if what is there is JSON of another kind, which GDAL may know."""
    try:
        if urlsplit(place).scheme in ("http", "https"):
            with urlopen(place, timeout=TIMEOUT_S) as answer:  # no aiohttp, which fsspec would need
                text = answer.read()
        else:
            with fsspec.open(place, "rb") as file:
                text = file.read()
        found = json.loads(text)
    except Exception as error:  # each file system of fsspec has classes of its own
        raise RasterError(
            f"STAC item {place}: {error} (expected a JSON file). Check its address, and that you "
            "have the right to read it."
        ) from error
    is_item = isinstance(found, dict) and found.get("type") == "Feature" and "assets" in found
    return found if is_item else None


def _is_raster(asset: dict[str, Any]) -> bool:
    if _OTHER_ROLES.intersection(asset.get("roles") or ()):
        return False
    kind: str = (asset.get("type") or "").lower()
    if kind:
        return kind.startswith(_RASTER_TYPES)
    href: str = asset["href"]
    return urlsplit(href).path.lower().endswith((".tif", ".tiff", ".jp2", ".vrt"))


def _absolute(href: str, place: str) -> str:
    """An asset's address, which may be given from where the item is."""
    if "://" in href or href.startswith("/vsi"):
        return href
    if "://" not in place:
        return str(Path(place).resolve().parent / href)
    if urlsplit(place).scheme in ("http", "https"):
        return urljoin(place, href)
    root, _, folder = place.rpartition("/")[0].partition("://")
    return f"{root}://{urljoin(f'/{folder}/', href).lstrip('/')}"


def _list(keys: Any) -> str:  # noqa: ANN401  # of a dict or a list
    return ", ".join(keys) or "none"
