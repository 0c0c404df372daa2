"""Pack the paper to hand in: its sources, the PDF, the code, a README and the requirements, in one archive.

    python -m paper.submission --out runs/submission.zip

    README.md  paper.pdf  requirements.txt      what to open first
    tritune/                                    the repository, with the sources of the paper in tritune/paper/

The same files give the same archive, byte for byte.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from common.console import UserError, run_command
from common.files import new_file
from common.options import option, parse
from paper.compile import pdf_is_current

ROOT = Path(__file__).resolve().parents[1]
FOLDER = "tritune"
LINK = re.compile(r"\]\((?!\w+:)([^)#]+)\)")  # of Markdown, to a file
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip file knows


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of this command."""

    out: Path = option(Path("runs/submission.zip"), "the archive", metavar="FILE")


def main() -> None:
    """Write the archive."""
    options = parse(Options, description=__doc__)
    contents = packed(ROOT)
    write_archive(contents, options.out)
    size = options.out.stat().st_size / 2**20
    print(f"wrote    {options.out}: {len(contents)} files, {size:.1f} MiB")


def packed(root: Path) -> dict[str, bytes]:
    """Path in the archive -> content, of a checkout.

    UserError without a checkout of git, which alone knows what belongs to the project, and when the PDF is not of the
    sources.
    """
    paper = root / "paper"
    if not pdf_is_current(paper):
        raise UserError("paper/paper.pdf is not compiled from the sources beside it; run `make paper`")
    repository = {f"{FOLDER}/{name}": (root / name).read_bytes() for name in tracked_files(root)}
    first = {
        "README.md": moved_links((paper / "README.md").read_text(encoding="utf-8")).encode(),
        "paper.pdf": (paper / "paper.pdf").read_bytes(),
        "requirements.txt": f"-e ./{FOLDER}[extras]\n".encode(),
    }
    return first | repository


def tracked_files(root: Path) -> list[str]:
    """Paths of the files that git tracks."""
    if shutil.which("git") is None:
        raise UserError("git is needed to list the files of the project")
    done = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{root} is not a checkout of git, which lists the files of the project")
    return sorted(name for name in done.stdout.split("\0") if name)


def moved_links(page: str) -> str:
    """The links of paper/README.md, as they must be two folders up."""
    return LINK.sub(lambda link: f"]({posixpath.normpath(f'{FOLDER}/paper/{link[1]}')})", page)


def write_archive(contents: dict[str, bytes], out: Path) -> None:
    """A zip file without times."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with new_file(out) as path, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o755 if content.startswith(b"#!") else 0o644) << 16
            archive.writestr(entry, content)


if __name__ == "__main__":
    sys.exit(run_command(main))
