"""The PDF is of the sources beside it, and LaTeX has nothing to complain about."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from common.console import UserError
from paper import compile as compiling
from paper import generate
from paper.compile import compile_paper, pdf_is_current, problems, source_hash
from paper.study import Study
from tests.paper.made_up import made_up_study

PAPER = Path(compiling.__file__).parent
needs_latex = pytest.mark.skipif(shutil.which("latexmk") is None, reason=f"no latexmk: {compiling.INSTALL}")


@pytest.fixture
def copy(tmp_path):
    """The sources, to change and compile."""
    return Path(shutil.copytree(PAPER, tmp_path / "paper", ignore=shutil.ignore_patterns("__pycache__")))


def test_the_committed_pdf_is_of_the_committed_sources(copy):
    assert pdf_is_current(PAPER), "run `make paper`"
    with (copy / "sections" / "results.tex").open("a") as file:
        file.write("%")
    assert not pdf_is_current(copy)


def test_the_hash_is_of_names_and_contents(copy):
    before = source_hash(copy)
    (copy / "generated" / "macros.tex").rename(copy / "generated" / "macro.tex")
    assert source_hash(copy) != before


@needs_latex
def test_the_paper_compiles(copy, tmp_path):
    assert 5 <= compile_paper(copy, tmp_path / "out.pdf") <= 10
    assert (tmp_path / "out.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.slow
@needs_latex
def test_a_paper_on_a_whole_study_compiles(copy, tmp_path):
    """Full tables and figures: the widest that there will be."""
    study, others = Study.of(made_up_study()), dict.fromkeys(("track_b_executed", "verl_sft", "quickstart_choices"))
    generate.write(generate.texts(study, others) | generate.pictures(study), copy)
    assert 7 <= compile_paper(copy, tmp_path / "out.pdf") <= 10


@pytest.mark.slow
@needs_latex
@pytest.mark.parametrize(
    ("added", "complaint"),
    [
        (r"\ref{tab:none}", "Reference `tab:none'"),
        (r"\cite{nobody}", "Citation `nobody'"),
        (r"\mbox{\rule{\linewidth}{1pt}xxx}", "Overfull"),
        (r"\nocommand", "LaTeX stopped: ! Undefined control sequence"),
        ("\u6f22", "LaTeX stopped"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_written(copy, tmp_path, added, complaint):
    with (copy / "sections" / "results.tex").open("a", encoding="utf-8") as file:
        file.write(f"\n\n{added}\n")
    with pytest.raises(UserError, match=complaint):
        compile_paper(copy, tmp_path / "out.pdf")
    assert not (tmp_path / "out.pdf").exists()


def test_what_must_not_be_in_a_log():
    log = (
        "Overfull \\hbox (4.9pt too wide) in paragraph\nOverfull \\hbox (5.1pt too wide) in paragraph at lines 1--2\n"
        "Overfull \\vbox (12.0pt too high) has occurred\n"
        "LaTeX Warning: Reference `x' on page 1 undefined on input line 5.\n"
        "Package natbib Warning: Citation `y' on page 1 undefined on input line 7.\n"
        "Missing character: There is no x in font y!\nLaTeX Warning: Label(s) may have changed.\n"
        "LaTeX Warning: Label `x' multiply defined.\nWarning--empty year in nobody\n"
    )
    found = problems(log)
    assert len(found) == 7 and not any("4.9pt" in one or "may have" in one for one in found)


def test_without_latexmk_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match=r"latexmk is needed.*apt-get install latexmk"):
        compile_paper(PAPER, tmp_path / "out.pdf")
