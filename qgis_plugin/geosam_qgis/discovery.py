"""Where the engine is: which command starts it."""

import os
import shlex
import shutil

from qgis.core import QgsSettings

VARIABLE = "GEOSAM_ENGINE"
SETTING = "geosam/engine"


def engine_command():
    """The engine's command as a list, by environment variable, setting or PATH; None if none."""
    named = os.environ.get(VARIABLE) or QgsSettings().value(SETTING, "", type=str)
    if named:
        return [named] if os.path.exists(named) else shlex.split(named)
    found = shutil.which("geosam")
    return [found] if found else None
