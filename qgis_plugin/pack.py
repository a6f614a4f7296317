"""Packs the plugin as QGIS installs it: `python pack.py [FOLDER]` writes FOLDER/geosam_qgis-X.zip.

The zip has one folder, geosam_qgis. The same files give the same zip, to the byte.
"""

import configparser
import sys
import zipfile
from pathlib import Path

PLUGIN = Path(__file__).parent / "geosam_qgis"
KINDS = {".py", ".svg", ".qm", ".txt", ""}  # "" is LICENSE
NEEDED = ("__init__.py", "metadata.txt", "LICENSE")
WHEN = (2020, 1, 1, 0, 0, 0)


def version() -> str:
    """The plugin's version."""
    metadata = configparser.ConfigParser(interpolation=None)
    metadata.read(PLUGIN / "metadata.txt", encoding="utf-8")
    return metadata["general"]["version"]


def files() -> list[Path]:
    """The files that a user needs."""
    found = (path for path in PLUGIN.rglob("*") if path.is_file() and path.suffix in KINDS)
    return sorted(path for path in found if "__pycache__" not in path.parts)


def pack(folder: Path) -> Path:
    """Write the zip.

    Raises:
        FileNotFoundError: a file is missing that QGIS or its plugin site asks for.
    """
    for name in NEEDED:
        if not (PLUGIN / name).is_file():
            raise FileNotFoundError(f"{PLUGIN / name}: not found (expected a file).")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{PLUGIN.name}-{version()}.zip"
    draft = path.with_suffix(".part")
    with zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in files():
            entry = zipfile.ZipInfo(file.relative_to(PLUGIN.parent).as_posix(), WHEN)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(entry, file.read_bytes())
    draft.replace(path)
    return path


if __name__ == "__main__":
    print(pack(Path(sys.argv[1] if len(sys.argv) > 1 else "dist")))
