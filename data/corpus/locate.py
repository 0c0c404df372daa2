"""Where source code comes from: a folder, an installed package, a package of PyPI or npm, a git repository.

Nothing fetched is executed or imported here: packages are located, archives unpacked and compiled, repositories cloned.
"""

from __future__ import annotations

import compileall
import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass, replace
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath

from common.console import UserError
from common.files import cache_folder, new_folder
from data.corpus.licenses import from_folder, from_metadata

UNPACKED_LIMIT = 2 << 30  # bytes; an archive that unpacks to more is treated as a zip bomb
GIT_URL = re.compile(r"^(git\+)?(https?|ssh|git|file)://|^git@[\w.-]+:")
PINNED = re.compile(r"^([A-Za-z0-9][\w.-]*)==([\w.!+]+)$")
NPM_PINNED = re.compile(r"^((?:@[a-z0-9~-][\w.~-]*/)?[a-z0-9~-][\w.~-]*)@(\d+\.\d+\.\d+[\w.+-]*)$")
KINDS = "a folder, package:NAME, pypi:NAME==VERSION, npm:NAME@VERSION or a git URL"


@dataclass(frozen=True)
class Located:
    """A source on disk. `scanned` (folder or file) holds the Python code, `root` must be on sys.path to import it.

    Other languages have no such root: their files are searched for in all of `tree`, and named relative to it.
    `metadata` is a Python package's; None where the files in `tree` determine the licence.
    """

    source: str  # as given to build_corpus; a folder as an absolute path
    name: str
    root: Path
    scanned: Path
    metadata: Message | None
    revision: str | None  # commit of a repository, NAME==VERSION of a package
    tree: Path

    @functools.cached_property
    def license(self) -> str | None:
        """The licence of the whole source. Read lazily: reading a licence file needs an extra package."""
        return from_folder(self.tree) if self.metadata is None else from_metadata(self.metadata)


def locate(source: str) -> Located:
    """Find (and, for pypi:, npm: and git, fetch into the cache) the code that `source` names.

    Raises UserError, with what to do, when there is no such folder, package, wheel or repository.
    """
    if source.startswith("package:"):
        return _installed_package(source)
    if source.startswith("pypi:"):
        return _pypi_package(source)
    if source.startswith("npm:"):
        return _npm_package(source)
    if GIT_URL.match(source):
        return _git_repository(source)
    folder = Path(source).expanduser()
    if not folder.exists():
        raise UserError(f"{source}: no such folder. SOURCE is {KINDS}")
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
    while (root / "__init__.py").exists():  # a folder inside a package: modules are named from the top-level package
        root = root.parent
    scanned = root if root.is_relative_to(folder) else folder
    return Located(
        source, folder.name, root=root, scanned=scanned, metadata=None, revision=_commit(folder), tree=folder
    )


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
    metadata, revision = Message(), None
    if distributions := importlib.metadata.packages_distributions().get(name, []):
        metadata = importlib.metadata.metadata(distributions[0])
        revision = f"{metadata['Name']}=={metadata['Version']}"
    return Located(
        source, name, root=scanned.parent, scanned=scanned, metadata=metadata, revision=revision, tree=scanned
    )


def _pypi_package(source: str) -> Located:
    match = PINNED.match(source.removeprefix("pypi:"))
    if not match:
        raise UserError(f"{source}: pin the version, such as pypi:networkx==3.4.2")
    pinned = match.group(0)
    folder = cache_folder() / "pypi" / pinned
    if not folder.exists():
        with new_folder(folder) as temporary:
            unzip(_download_wheel(pinned, temporary / ".wheel"), temporary)
            shutil.rmtree(temporary / ".wheel")
            # as pip does: else each check that imports the package would compile it anew
            compileall.compile_dir(temporary, quiet=2, stripdir=temporary, prependdir=folder)
    metadata = [HeaderParser().parsestr(path.read_text("utf-8")) for path in folder.glob("*.dist-info/METADATA")]
    return Located(
        source, match.group(1), root=folder, scanned=folder, metadata=next(iter(metadata), None), revision=pinned,
        tree=folder,
    )  # fmt: skip


def _download_wheel(pinned: str, folder: Path) -> Path:
    """Wheels only: even to inspect a source distribution, pip runs its build script."""
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command = [*pip, "-d", str(folder), pinned]
    result = subprocess.run(command, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if result.returncode or not wheels:
        why = (result.stderr.strip().splitlines() or ["no wheel"])[-1]
        raise UserError(
            f"pypi:{pinned}: no wheel was downloaded ({why}). Unpack its source distribution and give that folder"
        )
    return wheels[0]


def unzip(archive: Path, folder: Path) -> None:
    """Unpack a zip file. An entry that would land outside `folder`, a link, or too many bytes raise UserError."""
    with zipfile.ZipFile(archive) as opened:
        entries = opened.infolist()
        for entry in entries:
            inside = (folder / entry.filename).resolve().is_relative_to(folder.resolve())
            if not inside or stat.S_ISLNK(entry.external_attr >> 16):
                raise UserError(f"{archive.name}: entry {entry.filename!r} points outside the archive; not unpacked")
        if sum(entry.file_size for entry in entries) > UNPACKED_LIMIT:
            raise UserError(f"{archive.name}: unpacks to more than {UNPACKED_LIMIT >> 30} GiB; not unpacked")
        opened.extractall(folder)


def _npm_package(source: str) -> Located:
    match = NPM_PINNED.match(source.removeprefix("npm:"))
    if not match:
        raise UserError(f"{source}: pin the version, such as npm:rxjs@7.8.1")
    pinned, name = match.group(0), match.group(1)
    folder = cache_folder() / "npm" / pinned.replace("/", "+")
    if not folder.exists():
        with new_folder(folder) as temporary:
            untar(_download_tarball(pinned, temporary / ".pack"), temporary)
            shutil.rmtree(temporary / ".pack")
    return Located(source, name, root=folder, scanned=folder, metadata=None, revision=pinned, tree=folder)


def _download_tarball(pinned: str, folder: Path) -> Path:
    """The published tarball from the registry; none of the package's scripts run."""
    if not shutil.which("npm"):
        raise UserError(
            f"npm:{pinned}: npm is not installed. Install Node.js, or unpack the package and give its folder"
        )
    folder.mkdir()
    command = ["npm", "pack", pinned, "--ignore-scripts", "--silent", "--pack-destination", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    tarballs = list(folder.glob("*.tgz"))
    if result.returncode or not tarballs:
        why = next((line for line in result.stderr.splitlines() if line.strip()), "no tarball")
        raise UserError(f"npm:{pinned}: not downloaded ({why}). Check the name, the version and your connection")
    return tarballs[0]


def untar(archive: Path, folder: Path) -> None:
    """Unpack npm's tarball without its top-level folder (usually "package").

    UserError for an entry outside `folder`, one that is neither file nor folder, or too many bytes.
    """
    total = 0
    with tarfile.open(archive) as opened:
        for entry in opened:
            target = folder.joinpath(*PurePosixPath(entry.name).parts[1:])
            inside = target.resolve().is_relative_to(folder.resolve()) and not entry.name.startswith("/")
            if not inside or not (entry.isfile() or entry.isdir()):
                raise UserError(f"{archive.name}: entry {entry.name!r} is a link or points outside; not unpacked")
            total += entry.size
            if total > UNPACKED_LIMIT:
                raise UserError(f"{archive.name}: unpacks to more than {UNPACKED_LIMIT >> 30} GiB; not unpacked")
            if entry.isfile():
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened.extractfile(entry) as packed, open(target, "wb") as file:
                    shutil.copyfileobj(packed, file)


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
    return replace(_folder(source, folder), name=name)


def _commit(folder: Path) -> str | None:
    if not (folder / ".git").exists() or not shutil.which("git"):
        return None
    result = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True)
    return result.stdout.strip() or None
