import inspect

import pytest

from geosam import errors

TREE = {
    "PromptError": ("GeosamError", ValueError),
    "BandError": ("GeosamError", ValueError),
    "WeightsError": ("GeosamError", ValueError),
    "ModelError": ("GeosamError", ValueError),
    "TrainingError": ("GeosamError", ValueError),
    "DownloadError": ("GeosamError", OSError),
    "LabelError": ("GeosamError", ValueError),
    "MaskError": ("GeosamError", ValueError),
    "ProtocolError": ("GeosamError", ValueError),
    "ClusterError": ("GeosamError", OSError),
    "OutputError": ("GeosamError", ValueError),
    "OutputExists": ("OutputError", FileExistsError),
}


@pytest.mark.parametrize(("name", "parents"), TREE.items())
def test_every_error_has_the_parents_that_are_drawn(name, parents):
    own, builtin = parents
    assert getattr(errors, name).__bases__ == (getattr(errors, own), builtin)


def test_the_tree_is_complete():
    classes = {name for name, _ in inspect.getmembers(errors, inspect.isclass)}
    assert classes == TREE.keys() | {"GeosamError"}
    assert all(name in errors.__doc__ for name in classes)
