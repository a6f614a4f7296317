"""Outlines with right angles, for buildings, by the library `buildingregulariser`."""

import numpy as np
import numpy.typing as npt
import shapely

from geosam.errors import OutputError
from tiles import Frame

STEP_PX = 4.0  # an outline may move about so far


def check_regular() -> None:
    """Refuse early if the library is not there.

    Raises:
        OutputError: it is not installed.
    """
    try:
        import buildingregulariser  # noqa: F401
    except ImportError as error:
        raise OutputError(
            "Regular outlines: the package buildingregulariser is not installed (expected it to "
            "be). Run `pip install 'geosam-toolkit[buildings]'`."
        ) from error


def regular(outlines: npt.NDArray[np.object_], frame: Frame) -> npt.NDArray[np.object_]:
    """Outlines (N,) in raster px, squared on the ground; those that cannot be stay as they are."""
    import geopandas
    from buildingregulariser import regularize_geodataframe

    if not len(outlines):
        return outlines
    metres = np.array(frame.pixel_size_m)
    step = STEP_PX * float(metres.max())
    plane = shapely.transform(outlines, lambda xy: xy * metres)
    rows = geopandas.GeoDataFrame({"row": np.arange(len(plane))}, geometry=plane)
    squared = regularize_geodataframe(
        rows,
        parallel_threshold=step,
        simplify_tolerance=step / 2,
        allow_45_degree=False,
        allow_circles=False,
        num_cores=1,
    ).dissolve("row")
    result = outlines.copy()
    shapes = shapely.transform(squared.geometry.to_numpy(), lambda xy: xy / metres)
    sound = shapely.is_valid(shapes) & ~shapely.is_empty(shapes)
    result[squared.index.to_numpy()[sound]] = shapes[sound]
    return result
