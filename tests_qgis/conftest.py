import os
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "qgis_plugin"))


@pytest.fixture
def real_engine():
    """The command of a geosam that is installed, which `run` finds."""
    command = os.environ.get("GEOSAM_ENGINE")
    if not command:
        pytest.skip("no geosam (expected .venv/bin/geosam or the variable GEOSAM_ENGINE)")
    return shlex.split(command)


@pytest.fixture
def user(qtbot, qgis_iface, qgis_new_project):
    """Someone before a panel with the fake engine."""
    from user import FAKE, User

    made = User(qtbot, qgis_iface, lambda: FAKE)
    yield made
    made.panel.close()
    made.panel.dock.deleteLater()
