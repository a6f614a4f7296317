"""What can go wrong with rasters, frames and feature stores.

::

    TilesError
    ├── ProjectionError   (ValueError)    coordinates that have no place in a frame's CRS
    ├── RasterError       (OSError)       a raster that cannot be opened, placed on Earth or read
    ├── StoreMismatch     (ValueError)    a path that holds another store, or none
    ├── StoreIncomplete   (LookupError)   a tile that the store does not hold
    ├── StoreUnwritable   (OSError)       a store that takes nothing: a full disk, no right to write
    ├── StoreUnreachable  (OSError)       a store on a URL that does not answer
    └── StoreDamaged      (OSError)       a tile whose bytes are no longer what was written
"""


class TilesError(Exception):
    """Any error of this package."""


class ProjectionError(TilesError, ValueError):
    """Coordinates that cannot be brought into a frame's CRS."""


class RasterError(TilesError, OSError):
    """A raster that cannot be opened, placed on the ground or read."""


class StoreMismatch(TilesError, ValueError):
    """A path that holds something other than the feature store that was asked for."""


class StoreIncomplete(TilesError, LookupError):
    """A tile whose features the store does not hold."""


class StoreUnwritable(TilesError, OSError):
    """A feature store that takes nothing more, because of its disk or the rights to it."""


class StoreUnreachable(TilesError, OSError):
    """A feature store on a URL that gives no answer, because of network, credentials or rights."""


class StoreDamaged(TilesError, OSError):
    """A stored tile whose bytes fail their checksum or cannot be decoded."""
