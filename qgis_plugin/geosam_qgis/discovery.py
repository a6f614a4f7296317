"""Where the engine is: which command starts it, and which Python can make one.

What QGIS knows comes in as arguments; only `engine_command` and `engine_folder` ask QGIS.
"""

import os
import shlex
import shutil
from typing import NamedTuple

VARIABLE = "GEOSAM_ENGINE"
SETTING = "geosam/engine"
COMMAND = "geosam"
PYTHON = (3, 11)  # the oldest that the engine runs on
NEWER = ("python3.13", "python3.12", "python3.11", "python3", "python")


class Found(NamedTuple):
    """A command as a list, and how it was found: variable, setting, installed or path."""

    command: list
    how: str


def find(variable, setting, folder, on_path=None):
    """The engine, by what the user said first; None if there is none.

    Args:
        variable: what the environment variable GEOSAM_ENGINE says: a path or a command line.
        setting: the same, from QGIS's settings.
        folder: where the plugin installs an engine.
        on_path: the path of a `geosam` among the user's programs.
    """
    for named, how in ((variable, "variable"), (setting, "setting")):
        if named:
            return Found(_words(named), how)
    installed = program(folder, COMMAND)
    if os.path.exists(installed):
        return Found([installed], "installed")
    return Found([on_path], "path") if on_path else None


def program(folder, name):
    """The path of a program in a virtual environment."""
    if os.name == "nt":
        return os.path.join(folder, "Scripts", name + ".exe")
    return os.path.join(folder, "bin", name)


def pythons(executable, prefix, version, which=shutil.which):
    """Paths of Pythons that may make an engine, the likeliest first.

    In QGIS for Windows and macOS `executable` is QGIS itself; its Python is below `prefix`.

    Args:
        executable: `sys.executable`.
        prefix: `sys.prefix`.
        version: `sys.version_info`, of QGIS's Python.
        which: finds a program by its name.
    """
    found = []
    if tuple(version[:2]) >= PYTHON:
        own = [executable] if os.path.basename(executable).lower().startswith("python") else []
        own += [
            os.path.join(prefix, "python.exe"),
            os.path.join(prefix, "bin", "python3"),
        ]
        found += [path for path in own if os.path.exists(path)]
    found += [path for path in map(which, NEWER) if path]
    return list(dict.fromkeys(found))


def find_engine():
    """The engine of this user of QGIS; None if there is none."""
    from qgis.core import QgsSettings

    setting = QgsSettings().value(SETTING, "", type=str)
    return find(os.environ.get(VARIABLE), setting, engine_folder(), shutil.which(COMMAND))


def engine_command():
    """The engine's command as a list; None if there is none."""
    found = find_engine()
    return found.command if found else None


def engine_folder():
    """The virtual environment that the plugin makes, one for all profiles of the user."""
    from qgis.PyQt.QtCore import QStandardPaths

    data = QStandardPaths.writableLocation(QStandardPaths.StandardLocation.GenericDataLocation)
    return os.path.join(data, "geosam", "engine")


def _words(named):
    """A path, spaces and all, if there is such a file; else a command line."""
    return [named] if os.path.exists(named) else shlex.split(named, posix=os.name != "nt")
