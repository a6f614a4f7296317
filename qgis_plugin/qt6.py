"""Finds what Qt 6 lacks in code that runs on Qt 5: `python qt6.py FOLDER STUBS`.

FOLDER is the plugin, STUBS the folder of PyQt6 with its .pyi files; nothing of Qt is loaded. Each
name that is imported from qgis.PyQt must be in PyQt6, and so must each attribute of such a name,
which finds enums without their scope. A line that ends in "# Qt 5" is left aside. Prints one line a
fault; exits with 1 if there is any.
"""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TypeAlias

Members: TypeAlias = dict[str, ast.AST]
GONE = {"exec_", "print_"}  # PyQt5's names for methods that are words of Python 2


class Stubs:
    """The classes of PyQt6 and what they have."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._module = cache(self._read)

    def has(self, module: str, path: list[str]) -> bool:
        """Whether a module of PyQt6 has a name, with the names after it below each other."""
        members = self._module(module)
        for name in path:
            node = members.get(name)
            if node is None:
                return False
            if not isinstance(node, ast.ClassDef):
                return True  # what a value or a method has is not known
            members = self._members(module, node)
        return True

    def _members(self, module: str, node: ast.ClassDef) -> Members:
        found: Members = {}
        for base in node.bases:
            text = ast.unparse(base)
            if text.startswith("enum."):
                found.update(dict.fromkeys(("name", "value", "__members__"), node))
                continue
            home, _, name = text.rpartition(".")
            home = home.rpartition(".")[2] or module
            above = self._module(home).get(name)
            if isinstance(above, ast.ClassDef):
                found.update(self._members(home, above))
        return {**found, **_named(node.body)}

    def _read(self, module: str) -> Members:
        path = self._folder / f"{module}.pyi"
        return _named(ast.parse(path.read_text()).body) if path.exists() else {}


def faults(path: Path, stubs: Stubs) -> list[str]:
    """What a file has that Qt 6 has not, with its line."""
    text = path.read_text()
    lines = text.splitlines()
    return [
        f"{path}:{number}: Qt 6 has no {what}"
        for number, what in _missing(ast.parse(text), stubs)
        if not lines[number - 1].endswith("# Qt 5")
    ]


def _missing(tree: ast.Module, stubs: Stubs) -> Iterator[tuple[int, str]]:
    home = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("qgis.PyQt."):
            module = node.module.rpartition(".")[2]
            for name in node.names:
                home[name.asname or name.name] = (module, name.name)
                if not stubs.has(module, [name.name]):
                    yield node.lineno, f"{module}.{name.name}"
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        if node.attr in GONE:
            yield node.lineno, f"{node.attr}()"
        root, *rest = ast.unparse(node).split(".")
        if root in home and all(word.isidentifier() for word in rest):
            module, name = home[root]
            if stubs.has(module, [name]) and not stubs.has(module, [name, *rest]):
                yield node.lineno, ".".join([root, *rest])


def _named(body: list[ast.stmt]) -> Members:
    found: Members = {}
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign):
            found.update({t.id: node for t in node.targets if isinstance(t, ast.Name)})
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = node
    return found


if __name__ == "__main__":
    known = Stubs(Path(sys.argv[2]))
    lines = [
        line for path in sorted(Path(sys.argv[1]).rglob("*.py")) for line in faults(path, known)
    ]
    print("\n".join(lines) or "Qt 6: nothing is missing")
    sys.exit(bool(lines))
