"""Where source code comes from: a folder, an installed package, a wheel of the registry, a git repository.

Nothing that is fetched is executed or imported here: a package is located, a wheel is unzipped, a repository is cloned.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

from model.console import UserError
from model.files import cache_folder, new_folder

UNZIPPED_LIMIT = 2 << 30  # bytes; a wheel that unpacks to more is taken for a zip bomb
GIT_URL = re.compile(r"^(git\+)?(https?|ssh|git|file)://|^git@[\w.-]+:")
PINNED = re.compile(r"^([A-Za-z0-9][\w.-]*)==([\w.!+]+)$")


@dataclass(frozen=True)
class Located:
    """A source on the disk. `scanned` (folder or file) holds the code, `root` is what sys.path needs to import it."""

    source: str  # what build_corpus was asked for; a folder as an absolute path
    name: str
    root: Path
    scanned: Path
    license: str | None
    revision: str | None  # commit of a repository, NAME==VERSION of a package


def locate(source: str) -> Located:
    """Find (and, for pypi: and git, fetch into the cache) the code that `source` names.

    Raises UserError with what to do when there is no such folder, package, wheel or repository.
    """
    if source.startswith("package:"):
        return _installed_package(source)
    if source.startswith("pypi:"):
        return _registry_package(source)
    if GIT_URL.match(source):
        return _git_repository(source)
    folder = Path(source).expanduser()
    if not folder.exists():
        raise UserError(f"{source}: no such folder. SOURCE is a folder, package:NAME, pypi:NAME==VERSION or a git URL")
    if not folder.is_dir():
        raise UserError(f"{source}: not a folder")
    return _folder(str(folder.resolve()), folder.resolve())


def import_root(source: str) -> Path:
    """The folder that must be on sys.path for the modules of `source` to be importable."""
    return locate(source).root


def _folder(source: str, folder: Path) -> Located:
    root = folder
    if (folder / "src").is_dir() and not (folder / "src" / "__init__.py").exists():
        root = folder / "src"
    while (root / "__init__.py").exists():  # a folder inside a package: its modules are named from the top
        root = root.parent
    scanned = root if root.is_relative_to(folder) else folder
    return Located(source, folder.name, root, scanned, _folder_license(folder), _commit(folder))


def _installed_package(source: str) -> Located:
    name = source.removeprefix("package:")
    if not name.isidentifier():
        raise UserError(f"{source}: give the name of a top-level package, such as package:networkx")
    spec = importlib.util.find_spec(name)
    places = list(spec.submodule_search_locations or []) if spec else []
    if spec and not places and spec.origin and spec.origin.endswith(".py"):
        places = [spec.origin]
    if not places:
        raise UserError(f"{source}: no installed Python package of that name. Install it: pip install {name}")
    scanned = Path(places[0]).resolve()
    distributions = importlib.metadata.packages_distributions().get(name, [])
    if not distributions:
        return Located(source, name, scanned.parent, scanned, None, None)
    metadata = importlib.metadata.metadata(distributions[0])
    return Located(
        source, name, scanned.parent, scanned, _license(metadata), f"{metadata['Name']}=={metadata['Version']}"
    )


def _registry_package(source: str) -> Located:
    match = PINNED.match(source.removeprefix("pypi:"))
    if not match:
        raise UserError(f"{source}: pin the version, such as pypi:networkx==3.4.2")
    pinned = match.group(0)
    folder = cache_folder() / "pypi" / pinned
    if not folder.exists():
        with new_folder(folder) as temporary:
            unzip(_download_wheel(pinned, temporary / ".wheel"), temporary)
            shutil.rmtree(temporary / ".wheel")
    licenses = [
        _license(HeaderParser().parsestr(path.read_text("utf-8"))) for path in folder.glob("*.dist-info/METADATA")
    ]
    return Located(source, match.group(1), folder, folder, next(iter(licenses), None), pinned)


def _download_wheel(pinned: str, folder: Path) -> Path:
    """Wheels only: to look at a source distribution, pip runs its build script."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--quiet",
        "-d",
        str(folder),
        pinned,
    ]
    result = subprocess.run(command, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if result.returncode or not wheels:
        why = (result.stderr.strip().splitlines() or ["no wheel"])[-1]
        raise UserError(
            f"pypi:{pinned}: no wheel was downloaded ({why}). Unpack its source yourself and give that folder"
        )
    return wheels[0]


def unzip(archive: Path, folder: Path) -> None:
    """Unpack a zip file. An entry that would land outside `folder`, a link, or too many bytes raise UserError."""
    with zipfile.ZipFile(archive) as opened:
        entries = opened.infolist()
        for entry in entries:
            inside = (folder / entry.filename).resolve().is_relative_to(folder.resolve())
            if not inside or stat.S_ISLNK(entry.external_attr >> 16):
                raise UserError(f"{archive.name}: entry {entry.filename!r} points out of the archive; not unpacked")
        if sum(entry.file_size for entry in entries) > UNZIPPED_LIMIT:
            raise UserError(f"{archive.name}: unpacks to more than {UNZIPPED_LIMIT >> 30} GiB; not unpacked")
        opened.extractall(folder)


def _git_repository(source: str) -> Located:
    url = source.removeprefix("git+")
    name = url.rstrip("/").removesuffix(".git").rsplit("/", 1)[-1].rsplit(":", 1)[-1]
    folder = cache_folder() / "git" / f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
    if not folder.exists():
        if not shutil.which("git"):
            raise UserError(
                f"{source}: git is not installed. Install it, or download the repository and give its folder"
            )
        with new_folder(folder) as temporary:
            command = ["git", "clone", "--quiet", "--depth", "1", "--", url, str(temporary)]
            environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
            result = subprocess.run(command, capture_output=True, text=True, env=environment)
            if result.returncode:
                why = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
                raise UserError(f"{source}: not cloned ({why}). Check the address and your access to it")
    located = _folder(source, folder)
    return Located(source, name, located.root, located.scanned, located.license, located.revision)


def _commit(folder: Path) -> str | None:
    if not (folder / ".git").exists() or not shutil.which("git"):
        return None
    result = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True)
    return result.stdout.strip() or None


def _license(metadata) -> str | None:
    """The licence that package metadata declare: expression, classifier, or a short free text."""
    if metadata["License-Expression"]:
        return metadata["License-Expression"]
    for classifier in metadata.get_all("Classifier") or []:
        if classifier.startswith("License :: ") and classifier != "License :: OSI Approved":
            return classifier.rsplit(" :: ", 1)[-1]
    text = (metadata["License"] or "").strip()
    return text if 0 < len(text) <= 80 else None


def _folder_license(folder: Path) -> str | None:
    """From pyproject.toml's `license`, else the first line of a licence file."""
    project = folder / "pyproject.toml"
    if project.is_file():
        declared = re.search(
            r'^license\s*=\s*(?:\{\s*text\s*=\s*)?"([^"\n]{1,80})"', project.read_text("utf-8", "replace"), re.MULTILINE
        )
        if declared:
            return declared.group(1)
    for path in sorted([*folder.glob("LICEN[SC]E*"), *folder.glob("COPYING*")]):
        lines = path.read_text("utf-8", "replace").split("\n") if path.is_file() else []
        first = next((line.strip() for line in lines if line.strip()), "")
        if 0 < len(first) <= 80:
            return first
    return None
