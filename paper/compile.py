"""Compile the paper: paper/paper.pdf, if LaTeX finds nothing to complain about.

    python -m paper.compile

Refused are undefined references and citations, incomplete entries of the bibliography, characters that a font lacks and
boxes that are overfull by more than 5 pt. The PDF holds the SHA-256 of its sources, which tells whether it is current.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from common.console import UserError, run_command
from common.files import new_file
from common.options import option, parse

HERE = Path(__file__).resolve().parent
INSTALL = "apt-get install latexmk texlive-latex-recommended texlive-fonts-recommended"
MOST_OVERFULL = 5.0  # pt
PROBLEMS = re.compile(
    r"^.*Warning: (?:Reference|Citation) .* undefined.*$|^.*Warning: Label .* multiply.*$|^Missing character:.*$"
    r"|^Warning--.*$",  # the last is BibTeX's
    re.MULTILINE,
)
OVERFULL = re.compile(r"^Overfull \\[hv]box \((\d+(?:\.\d+)?)pt too .*$", re.MULTILINE)
GAP = re.compile(r"\\gap\{")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of this command."""

    out: Path = option(HERE / "paper.pdf", "the PDF", metavar="FILE")


def main() -> None:
    """Compile, check, and say what is left to write."""
    options = parse(Options, description=__doc__)
    pages = compile_paper(HERE, options.out)
    gaps = sum(len(GAP.findall(path.read_text(encoding="utf-8"))) for path in (HERE / "sections").glob("*.tex"))
    print(f"wrote    {options.out}: {pages} pages, {gaps} passages left to write")


def sources(folder: Path) -> list[Path]:
    """Every file that the PDF is made from."""
    patterns = ("paper.tex", "references.bib", "sections/*.tex", "generated/*")
    return sorted(path for pattern in patterns for path in folder.glob(pattern))


def source_hash(folder: Path) -> str:
    """SHA-256 over names and contents of the sources."""
    digest = hashlib.sha256()
    for path in sources(folder):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def pdf_is_current(folder: Path) -> bool:
    """Whether folder/paper.pdf was compiled from the sources beside it."""
    pdf = folder / "paper.pdf"
    return pdf.is_file() and f"/SourcesSHA256 ({source_hash(folder)})".encode() in pdf.read_bytes()


def compile_paper(folder: Path, out: Path) -> int:
    """Compile folder/paper.tex into `out`; returns the number of pages.

    UserError when latexmk is not installed, when LaTeX stops at an error, and for `problems`: then nothing is written.
    """
    if shutil.which("latexmk") is None:
        raise UserError(f"latexmk is needed to compile the paper: {INSTALL}")
    with tempfile.TemporaryDirectory() as build:
        command = [
            "latexmk", "-pdf", "-interaction=nonstopmode", "-halt-on-error", f"-outdir={build}",
            f"-usepretex=\\def\\sourcehash{{{source_hash(folder)}}}", "paper.tex",
        ]  # fmt: skip
        environment = os.environ | {"max_print_line": "10000"}  # no line breaks within a message of the log
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, errors="replace")
        logs = [Path(build, name) for name in ("paper.log", "paper.blg")]
        log = "\n".join(path.read_text(encoding="latin-1") for path in logs if path.is_file())
        if done.returncode:
            error = re.search(r"^! .*(?:\n.*)?", log, re.MULTILINE)
            raise UserError(f"LaTeX stopped: {error[0] if error else done.stdout[-300:]}")
        if found := problems(log):
            raise UserError(f"{len(found)} problems in the paper: {'; '.join(found)}")
        with new_file(out) as path:
            shutil.copyfile(Path(build, "paper.pdf"), path)
    written = re.search(r"Output written on .*?\((\d+) pages?", log)
    return int(written[1]) if written else 0


def problems(log: str) -> list[str]:
    """What must not be in the logs of the last pass of LaTeX and of BibTeX."""
    overfull = [found[0] for found in OVERFULL.finditer(log) if float(found[1]) > MOST_OVERFULL]
    return [found.strip() for found in PROBLEMS.findall(log)] + overfull


if __name__ == "__main__":
    sys.exit(run_command(main))
