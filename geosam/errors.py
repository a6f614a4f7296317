"""What can go wrong with prompts, models, masks and results.

::

    GeosamError
    ├── PromptError        (ValueError)       points, boxes or polygons that name no object
    ├── BandError          (ValueError)       bands that the raster does not have
    ├── WeightsError       (ValueError)       weights that are missing, damaged or of another model
    ├── ModelError         (ValueError)       a model that cannot do what is asked of it
    ├── TrainingError      (ValueError)       polygons or a model that cannot be trained with
    ├── DownloadError      (OSError)          weights that could not be fetched
    ├── LabelError         (ValueError)       labelled polygons, or files of them, that are no use
    ├── MaskError          (ValueError)       masks that cannot become polygons
    ├── ProtocolError      (ValueError)       a request that the server does not understand
    ├── ClusterError       (OSError)          a cluster of workers that cannot do its part
    └── OutputError        (ValueError)       a result that a file cannot hold, or not written
        └── OutputExists   (FileExistsError)  a file that would be overwritten

Rasters and feature stores raise the errors of `tiles.errors`.
"""


class GeosamError(Exception):
    """Any error of this package."""


class PromptError(GeosamError, ValueError):
    """Points, boxes or polygons that do not say which object is meant."""


class BandError(GeosamError, ValueError):
    """Bands that the raster does not have, or not one or three of them."""


class WeightsError(GeosamError, ValueError):
    """Model weights that are missing, damaged or of another model."""


class ModelError(GeosamError, ValueError):
    """A model that cannot do what is asked of it."""


class TrainingError(GeosamError, ValueError):
    """Polygons that nothing can be learned from, or a model that cannot learn from them."""


class DownloadError(GeosamError, OSError):
    """Weights that could not be fetched."""


class LabelError(GeosamError, ValueError):
    """Labelled polygons, or manifests and annotation files of them, that cannot be used."""


class MaskError(GeosamError, ValueError):
    """A mask or a label raster that cannot become polygons."""


class OutputError(GeosamError, ValueError):
    """A result that cannot be written as asked."""


class OutputExists(OutputError, FileExistsError):
    """A file that already exists and was not to be overwritten."""


class ProtocolError(GeosamError, ValueError):
    """A request to the server that it does not understand."""


class ClusterError(GeosamError, OSError):
    """A dask cluster that cannot be reached, was lost, or whose workers cannot work."""
