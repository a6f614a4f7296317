"""The zip that QGIS installs; no QGIS is needed to make it."""

import configparser
import importlib.util
import io
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "qgis_plugin" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return script("pack").pack(tmp_path_factory.mktemp("dist"))


def test_the_zip_is_what_the_plugin_site_takes(packed):
    with zipfile.ZipFile(packed) as opened:
        names = opened.namelist()
        metadata = configparser.ConfigParser(interpolation=None)
        metadata.read_file(io.TextIOWrapper(opened.open("geosam_qgis/metadata.txt"), "utf-8"))
    assert packed.stat().st_size < 1_000_000
    assert {name.split("/")[0] for name in names} == {"geosam_qgis"}
    for needed in ("__init__.py", "metadata.txt", "LICENSE", "icons/geosam.svg"):
        assert f"geosam_qgis/{needed}" in names
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]
    general = metadata["general"]
    for key in (
        "name", "description", "version", "qgisMinimumVersion", "author", "email", "about",
        "tracker", "repository", "homepage",
    ):  # fmt: skip
        assert general[key], key
    assert f"geosam_qgis/{general['icon']}" in names
    assert "/" not in general["author"] and "geosam-toolkit" in general["about"]


def test_the_same_files_give_the_same_zip(packed, tmp_path):
    assert script("pack").pack(tmp_path).read_bytes() == packed.read_bytes()


STUB = """
import enum
class Base:
    class Shape(enum.Enum):
        Round = ... # type: Base.Shape
    def exec(self) -> int: ...
class Child(Base): ...
"""


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ("Child.Shape.Round", None),
        ("Child.Shape.Round.value", None),
        ("Child.Round", "Child.Round"),
        ("Child.Round  # Qt 5", None),
        ("Child.Shape.Square", "Child.Shape.Square"),
        ("Child().exec()", None),
        ("Child().exec_()", "exec_()"),
        ("from qgis.PyQt.QtTest import Lost", "QtTest.Lost"),
    ],
)
def test_what_qt_6_lacks_is_found(tmp_path, line, missing):
    (tmp_path / "QtTest.pyi").write_text(STUB)
    path = tmp_path / "code.py"
    path.write_text(f"from qgis.PyQt.QtTest import Child\n{line}\n")
    qt6 = script("qt6")
    expected = [f"{path}:2: Qt 6 has no {missing}"] if missing else []
    assert qt6.faults(path, qt6.Stubs(tmp_path)) == expected
