"""What is committed is what the results give, and the text quotes nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from paper import generate
from paper.figures import cost_points, curve_points, draw_curves, reference_lines
from paper.study import EXPERIMENTS, Study
from tests.paper.made_up import made_up_study

PAPER = Path(generate.__file__).parent
TEXTS = {
    path.name: path.read_text(encoding="utf-8") for path in [PAPER / "paper.tex", *(PAPER / "sections").glob("*.tex")]
}
OTHERS = dict.fromkeys(("track_b_executed", "verl_sft", "quickstart_choices"))  # not run
DRAWN_BY = re.compile(rb"/Producer \((Matplotlib[^)]*)\)")
KEYWORD = re.compile(rb"/Keywords \((\w{64})\)")


def same_figure(one: bytes, other: bytes) -> bool:
    """The same bytes; of two versions of matplotlib, the same points."""
    if DRAWN_BY.findall(one) == DRAWN_BY.findall(other):
        return one == other
    return KEYWORD.findall(one) == KEYWORD.findall(other) != []


def test_what_is_committed_is_what_the_results_give():
    made = generate.generated(EXPERIMENTS)
    found = {
        path.relative_to(PAPER).as_posix(): path for path in [*(PAPER / "generated").iterdir(), PAPER / "README.md"]
    }
    assert found.keys() == made.keys(), "run `make paper`"
    for name, content in made.items():
        same = same_figure if name.endswith(".pdf") else bytes.__eq__
        assert same(found[name].read_bytes(), content), f"{name} is not what the results give: run `make paper`"


@pytest.fixture(scope="module")
def study():
    return Study.of(made_up_study())


@pytest.fixture(scope="module")
def whole(study):
    """What would be generated from a whole study."""
    return generate.texts(study, OTHERS)


@pytest.fixture(scope="module")
def drawn():
    """The figures of a study of one task, which is quicker."""
    results = made_up_study()
    results["tasks"] = results["tasks"][:1]
    results["curves"] = results["curves"][:2]
    return generate.pictures(Study.of(results)), results


def test_a_changed_result_changes_what_is_generated(whole):
    results = made_up_study()
    results["summary"][0]["metrics"]["accuracy"] += (
        0.001  # of a classical baseline, which both models are compared with
    )
    again = generate.texts(Study.of(results), OTHERS)
    changed = {name for name in whole if whole[name] != again[name]}
    assert changed == {"generated/table_main.tex", "generated/table_second.tex"}


def test_the_same_results_give_the_same_figures(drawn):
    made, results = drawn
    assert draw_curves(Study.of(results)) == made["generated/curves.pdf"]
    assert {name for name in made if name.endswith(".pdf")} == {"generated/cost.pdf", "generated/curves.pdf"}


def test_a_figure_shows_every_method_where_the_results_have_it(study):
    points = cost_points(study, "trainable_parameters")["PubMedQA, accuracy"]
    assert points["IA3"] == [(57_600, pytest.approx(0.26), pytest.approx(0.20), pytest.approx(0.32))]
    assert list(points) == [study.short(one["method"]) for one in study.methods]
    assert reference_lines(study)["SciTLDR, rougeL"] == {"zero-shot": 0.31, "best classical": 0.28}
    curve = curve_points(study)["TREC, accuracy"]["LoRA (r = 8)"]
    assert [x for x, *_ in curve] == [100, 300, 1000, 5452] and curve[0][1:] == (0.3, 0.2, 0.4)


def test_figures_of_two_versions_are_compared_by_what_they_draw(drawn):
    made, _ = drawn
    figure = made["generated/cost.pdf"]
    other = DRAWN_BY.sub(b"/Producer (Matplotlib of another version)", figure).replace(b"stream", b"Stream")
    assert same_figure(figure, other) and not same_figure(figure, made["generated/curves.pdf"])
    assert not same_figure(figure, KEYWORD.sub(b"/Keywords (" + b"0" * 64 + b")", other))
    assert not same_figure(figure, figure.replace(b"stream", b"Stream"))


def test_without_results_nothing_has_a_figure(tmp_path):
    made = generate.generated(tmp_path)
    for name, content in made.items():
        if name.startswith("generated/table_") or name.startswith("generated/figure_"):
            assert content.decode().strip() == generate.NOT_RUN, name
    said = made["generated/macros.tex"].decode().replace("{20}", "")  # the assumed watts
    assert not re.search(r"\d", said) and not any(name.endswith(".pdf") for name in made)


def test_every_macro_is_used_and_everything_generated_is_included(whole, drawn):
    made = whole | drawn[0]
    text = "".join(TEXTS.values())
    defined = set(re.findall(r"\\newcommand\{\\(\w+)\}", made["generated/macros.tex"].decode()))
    template = (PAPER / "README.md.j2").read_text(encoding="utf-8")
    unused = {name for name in defined if f"\\{name}{{}}" not in text and f"said.{name} " not in template}
    assert not unused
    included = set(re.findall(r"\\input\{(generated/\w+)\}", text))
    included |= {f"generated/table_{name}" for name in re.findall(r"\\fitted\{(\w+)\}", text)}
    assert included == {name.removesuffix(".tex") for name in made if name.endswith(".tex")}


@pytest.mark.parametrize("section", ["abstract", "results", "analysis", "conclusion"])
def test_no_measured_figure_is_typed_in(section):
    """These sections have numbers of questions, and the level of the intervals; whatever was measured is a macro."""
    names = r"SmolLM2(?:-135M-Instruct)?|pass@1|IA3|RQ\d|\\(?:ref|label|code|input|cite\w*)(?:\[[^]]*\])*\{[^}]*\}"
    assert re.findall(r"\d+(?!\\,\\%)", re.sub(rf"{names}|95\\,\\%", "", TEXTS[f"{section}.tex"])) == []


def test_the_readme_says_what_was_found_and_how_to_repeat_it(whole):
    page = whole["README.md"].decode()
    for part in ("## Set up", "## Data", "## Models", "## Methods", "## Run it again", "## Notes and assumptions"):
        assert part in page
    assert (
        "40 of 56 are better than the zero-shot prompt" in page and "`--method prefix` | 0.0001, 0.0003, 0.001" in page
    )
    assert all(link in page for link in ("cogcomp", "pubmedqa/pubmedqa", "allenai/scitldr", "networkx.org"))


def test_what_is_no_longer_made_is_removed(tmp_path):
    (tmp_path / "generated").mkdir()
    for name in ("table_old.tex", "macros.tex"):
        (tmp_path / "generated" / name).write_text("1.23")
    generate.write({"README.md": b"page", "generated/macros.tex": b"new"}, tmp_path)
    assert [path.name for path in (tmp_path / "generated").iterdir()] == ["macros.tex"]
    assert (tmp_path / "generated" / "macros.tex").read_bytes() == b"new" and (tmp_path / "README.md").is_file()
