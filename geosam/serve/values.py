"""Values of the protocol: prompts, areas, parameters in; polygons out."""

import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import shapely
from pyproj import CRS
from pyproj.exceptions import CRSError
from shapely.geometry import mapping, shape
from shapely.geometry.base import BaseGeometry

from geosam.errors import ProtocolError
from geosam.prompts import Prompt, PromptSet

_NUMBERS = (int, float)
_PARTS = ("id", "points", "labels", "box", "mask")


def arguments(operation: Callable[..., object], given: Mapping[str, Any]) -> dict[str, Any]:
    """A request's parameters for an operation, checked by its keyword-only ones.

    Raises:
        ProtocolError: one is unknown, missing or of another type.
    """
    name = operation.__name__
    known = {
        key: parameter
        for key, parameter in inspect.signature(operation).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    for key in given:
        if key not in known:
            raise ProtocolError(
                f"{name}: parameter {key!r} (expected {', '.join(known) or 'none'}). Leave it out."
            )
    for key, parameter in known.items():
        if key not in given and parameter.default is parameter.empty:
            raise ProtocolError(f"{name}: no parameter {key!r} (expected one). Name it.")
        if key in given and not _fits(given[key], parameter.annotation):
            kind = str(getattr(parameter.annotation, "__name__", parameter.annotation))
            raise ProtocolError(
                f"{name}: {key} is {given[key]!r} (expected {kind}). See docs/protocol.md."
            )
    return dict(given)


def prompt_set(prompts: Sequence[Mapping[str, Any]], crs: str | None) -> PromptSet:
    """Prompts as the protocol writes them.

    Raises:
        ProtocolError: one is no object of known parts, or its mask is no GeoJSON geometry.
        PromptError: one names no object.
    """
    made = []
    for number, prompt in enumerate(prompts, start=1):
        unknown = [key for key in prompt if key not in _PARTS]
        if unknown:
            raise ProtocolError(
                f"Prompt {number}: {unknown[0]!r} (expected {', '.join(_PARTS)}). Leave it out."
            )
        made.append(_prompt(str(prompt.get("id", number)), prompt))
    return PromptSet(tuple(made), crs_of(crs))


def _prompt(name: str, parts: Mapping[str, Any]) -> Prompt:
    try:
        points = np.array(parts.get("points") or [], np.float64).reshape(-1, 2)
        labels = np.array(parts.get("labels", [1] * len(points)))
        box = tuple(map(float, parts["box"])) if parts.get("box") is not None else None
    except (TypeError, ValueError) as error:
        raise ProtocolError(
            f"Prompt {name!r}: {error} (expected points as [[x, y], ...], labels as [1, 0, ...] "
            "and a box as [xmin, ymin, xmax, ymax])."
        ) from error
    mask = parts.get("mask")
    return Prompt(
        name,
        points,
        labels if labels.size else np.empty(0, np.int64),
        box,  # type: ignore[arg-type]  # Prompt checks its length
        None if mask is None else area_of(mask),  # type: ignore[arg-type]  # and the kind
    )


def area_of(geometry: Mapping[str, Any]) -> BaseGeometry:
    """A GeoJSON geometry.

    Raises:
        ProtocolError: it is none.
    """
    try:
        made: BaseGeometry = shape(dict(geometry))
    except (AttributeError, KeyError, TypeError, ValueError, shapely.GEOSException) as error:
        raise ProtocolError(
            f"Geometry: {error} (expected GeoJSON, such as "
            '{"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}).'
        ) from error
    if made.is_empty:
        raise ProtocolError("Geometry: empty (expected a polygon). Draw one.")
    return made


def crs_of(text: str | None) -> CRS | None:
    """A CRS by its code or WKT; None stands for the raster's.

    Raises:
        ProtocolError: it is not known.
    """
    try:
        return None if text is None else CRS.from_user_input(text)
    except CRSError as error:
        raise ProtocolError(
            f"crs: {text!r} is not known (expected a code such as 'EPSG:4326', or WKT)."
        ) from error


def plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """A polygon's record as JSON values; the geometry is GeoJSON's, NaN is null."""
    return {
        **{name: _plain(value) for name, value in record.items()},
        "geometry": None if record["geometry"] is None else mapping(record["geometry"]),
    }


def _plain(value: Any) -> Any:  # noqa: ANN401  # a table's cell
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _fits(value: object, annotation: object) -> bool:
    """Whether a JSON value is of an annotated type; looks into lists, not into objects."""
    if isinstance(annotation, types.UnionType):
        return any(_fits(value, one) for one in typing.get_args(annotation))
    if annotation is None or annotation is type(None):
        return value is None
    origin, inner = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    if origin in _NUMBERS:
        allowed = _NUMBERS if origin is float else int
        return isinstance(value, allowed) and not isinstance(value, bool)
    if origin is Mapping:
        return isinstance(value, dict)
    if origin is list:
        return isinstance(value, list) and all(_fits(item, inner[0]) for item in value)
    return isinstance(value, origin)  # type: ignore[arg-type]  # str, bool
