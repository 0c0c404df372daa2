"""The licence of a file, from its own header, REUSE, the nearest licence file, or the package's metadata.

Names are SPDX's (https://spdx.org/licenses) where the text or the metadata allow it. A licence file of the GNU family
does not say whether later versions apply, so it gets neither -only nor -or-later. license_texts.py reads the files.
"""

from __future__ import annotations

import ast
import functools
import json
import re
from collections.abc import Iterable
from email.message import Message
from pathlib import Path

from data.corpus.license_texts import identify_file

HEAD_LINES = 20
SPDX = re.compile(r"SPDX-License-Identifier:\s*(\(?[\w.+-]+\)?(?: (?:AND|OR|WITH) \(?[\w.+-]+\)?)*)")
FILE = re.compile(r"(licen[sc]e|copying)([-_.][\w.-]+)?", re.IGNORECASE)
NO_TEXT = frozenset({".py", ".js", ".mjs", ".cjs", ".ts", ".json", ".html", ".toml", ".yml", ".yaml"})
SPOKEN = {  # names used in metadata and one-line licence files, lower case, without commas -> SPDX
    "mit license": "MIT",
    "the mit license": "MIT",
    "apache software license": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license version 2.0": "Apache-2.0",
    "bsd 3-clause": "BSD-3-Clause",
    "bsd-3": "BSD-3-Clause",
    "3-clause bsd": "BSD-3-Clause",
    "bsd 2-clause": "BSD-2-Clause",
    "isc license (iscl)": "ISC",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
    "the unlicense (unlicense)": "Unlicense",
    "gnu general public license v2 (gplv2)": "GPL-2.0-only",
    "gnu general public license v2 or later (gplv2+)": "GPL-2.0-or-later",
    "gnu general public license v3 (gplv3)": "GPL-3.0-only",
    "gnu general public license v3 or later (gplv3+)": "GPL-3.0-or-later",
    "gnu lesser general public license v3 (lgplv3)": "LGPL-3.0-only",
    "gnu lesser general public license v3 or later (lgplv3+)": "LGPL-3.0-or-later",
    "gnu affero general public license v3": "AGPL-3.0-only",
}


def declared(text: str) -> str | None:
    """The SPDX expression in the first lines of a source file."""
    found = SPDX.search("\n".join(text.split("\n", HEAD_LINES)[:HEAD_LINES]))
    return found.group(1) if found else None


def from_metadata(metadata: Message) -> str | None:
    """The licence that a Python package's metadata declare: expression, classifier, or a short free text."""
    if metadata["License-Expression"]:
        return metadata["License-Expression"]
    for classifier in metadata.get_all("Classifier") or []:
        if classifier.startswith("License :: ") and classifier != "License :: OSI Approved":
            return _spdx(classifier.rsplit(" :: ", 1)[-1])
    text = (metadata["License"] or "").strip()
    return _spdx(text) if 0 < len(text) <= 80 else None


def from_folder(folder: Path) -> str | None:
    """From pyproject.toml's or package.json's `license`, else from the first licence file that can be read."""
    project = folder / "pyproject.toml"
    if project.is_file():
        declared_there = re.search(
            r'^license\s*=\s*(?:\{\s*text\s*=\s*)?"([^"\n]{1,80})"', project.read_text("utf-8", "replace"), re.MULTILINE
        )
        if declared_there:
            return _spdx(declared_there.group(1))
    return _from_package_json(folder / "package.json") or _from_license_file(folder)


def _from_package_json(path: Path) -> str | None:
    try:
        value = json.loads(path.read_text("utf-8"))["license"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    value = value.get("type") if isinstance(value, dict) else value
    return value if isinstance(value, str) and 0 < len(value) <= 80 else None


def _from_license_file(folder: Path) -> str | None:
    for path in sorted(folder.iterdir()):
        if not FILE.fullmatch(path.name) or path.suffix in NO_TEXT or not path.is_file():
            continue
        if name := identify_file(path):
            return _spdx(name)
    return None


def _spdx(name: str) -> str:
    return SPOKEN.get(name.lower().replace(",", ""), name)


class FolderLicenses:
    """The licences of the files below `top`, from the files beside them; else `default`."""

    def __init__(self, top: Path, default: str | None):
        self.top = top
        self.default = default
        self.annotations = _reuse_annotations(top / "REUSE.toml")
        self._below = functools.cache(self._find)

    def of(self, file: Path) -> str | None:
        """FILE.license, else REUSE.toml (https://reuse.software/spec-3.3), else the nearest licence file above it."""
        beside = file.with_name(file.name + ".license")
        if beside.is_file() and (name := declared(beside.read_text("utf-8", "replace"))):
            return name
        path = file.relative_to(self.top).as_posix()
        matching = [name for pattern, name in self.annotations if pattern.fullmatch(path)]
        return matching[-1] if matching else self._below(file.parent)

    def _find(self, folder: Path) -> str | None:
        if folder == self.top or self.top not in folder.parents:
            return self.default
        return _from_license_file(folder) or self._below(folder.parent)


def _reuse_annotations(path: Path) -> list[tuple[re.Pattern, str]]:
    if not path.is_file():
        return []
    try:
        import tomllib
    except ImportError:  # Python 3.10
        from common.console import need

        tomllib = need("tomli", why="reading REUSE.toml on Python 3.10")
    try:
        tables = tomllib.loads(path.read_text("utf-8", "replace")).get("annotations", [])
    except tomllib.TOMLDecodeError:
        return []
    found = []
    for table in tables:
        name, paths = table.get("SPDX-License-Identifier"), table.get("path", [])
        for glob in [paths] if isinstance(paths, str) else paths:
            if isinstance(name, str):
                found.append((_pattern(glob), name))
    return found


def _pattern(glob: str) -> re.Pattern:
    """REUSE's globs: * stops at a slash, ** does not."""
    parts = re.split(r"(\*\*|\*)", glob)
    return re.compile("".join({"**": ".*", "*": "[^/]*"}.get(part) or re.escape(part) for part in parts))


def allowed(license: str | None, names: Iterable[str]) -> bool:
    """Whether an SPDX expression can be satisfied by the licences in `names`; None and other texts count as one name.

    One side of OR suffices, AND needs both, an exception (WITH) only adds permissions.
    """
    if license is None:
        return False
    wanted = {name.casefold() for name in names}
    if license.casefold() in wanted:
        return True
    # SPDX's operators bind as Python's do: MIT OR (A WITH E AND B) -> "True or ( False | False and True )"
    operators = {"AND": "and", "OR": "or", "WITH": "|", "(": "(", ")": ")"}
    tokens = re.findall(r"[()]|[^\s()]+", license)
    expression = " ".join(operators.get(token) or str(token.casefold() in wanted) for token in tokens)
    try:
        return _is_met(ast.parse(expression, mode="eval").body)
    except SyntaxError:
        return False


def _is_met(node: ast.expr) -> bool:
    """The value of True and False joined by `and`, `or` and `|`; SyntaxError for anything else, such as a call."""
    if isinstance(node, ast.BoolOp):
        values = [_is_met(value) for value in node.values]
        return all(values) if isinstance(node.op, ast.And) else any(values)
    if isinstance(node, ast.BinOp):
        return _is_met(node.left)  # an exception only adds permissions
    if isinstance(node, ast.Constant):
        return node.value is True
    raise SyntaxError
