"""Collects what the plugin says: `python translations.py de` writes geosam_qgis/i18n/geosam_de.ts.

Translate that file with Qt Linguist, and let `lrelease` make the .qm file, which the plugin loads.
Run again later: what is translated stays, what is new comes in, what is gone goes.
"""

import ast
import sys
import xml.etree.ElementTree as ET  # our own files
from pathlib import Path

PLUGIN = Path(__file__).parent / "geosam_qgis"
CONTEXT = "geosam"


def texts(folder: Path) -> list[str]:
    """The texts that are shown: what `tr` is called with, and the algorithms' WORDS."""
    found: dict[str, None] = {}
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "tr":
                parts = node.args
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "WORDS":
                parts = node.value.elts[1:]  # type: ignore[attr-defined]
            else:
                continue
            said = (p.value for p in parts if isinstance(p, ast.Constant) and p.value)
            found.update(dict.fromkeys(said))
    return list(found)


def update(path: Path, language: str, said: list[str]) -> None:
    """Write a .ts file, with the translations that it has already."""
    known = {}
    if path.exists():
        for message in ET.parse(path).iter("message"):
            known[message.findtext("source")] = message.findtext("translation")
    root = ET.Element("TS", version="2.1", language=language, sourcelanguage="en")
    context = ET.SubElement(root, "context")
    ET.SubElement(context, "name").text = CONTEXT
    for text in said:
        message = ET.SubElement(context, "message")
        ET.SubElement(message, "source").text = text
        translation = ET.SubElement(message, "translation")
        translation.text = known.get(text)
        if not translation.text:
            translation.set("type", "unfinished")
    ET.indent(root)
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        '<?xml version="1.0" encoding="utf-8"?>\n<!DOCTYPE TS>\n'
        + ET.tostring(root, encoding="unicode") + "\n",
        encoding="utf-8",
    )  # fmt: skip


if __name__ == "__main__":
    for code in sys.argv[1:]:
        update(PLUGIN / "i18n" / f"geosam_{code}.ts", code, texts(PLUGIN))
