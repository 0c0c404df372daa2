"""Write paper/generated/ and paper/README.md from experiments/*/results.json: macros, tables and figures.

    python -m paper.generate

Every figure that the paper quotes is a macro written here, so that none can differ from the results. What has not been
run yet is marked so. The output is committed; a test holds it to the results.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import jinja2

from common.console import run_command
from common.files import new_file
from common.options import parse
from paper import figures, sentences, tables
from paper.latex import NOT_RUN, escape, macros
from paper.study import EXPERIMENTS, Study, read_results

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, kw_only=True)
class Options:
    """This command has none."""


def main() -> None:
    """Write what the results give, and say what they lack."""
    parse(Options, description=__doc__)
    files = generated(EXPERIMENTS)
    write(files, HERE)
    lacking = [Path(name).stem for name, content in files.items() if content.strip() == NOT_RUN.encode()]
    print(f"wrote    {len(files)} files in {HERE.name}/; not run yet: {', '.join(lacking) or 'nothing'}")


def write(files: dict[str, bytes], folder: Path) -> None:
    """Write the files below a folder, and remove whatever else is in its generated/."""
    for stale in {*(folder / "generated").glob("*")} - {folder / name for name in files}:
        stale.unlink()
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        with new_file(folder / name) as path:
            path.write_bytes(content)


def generated(experiments: Path) -> dict[str, bytes]:
    """Path below paper/ -> content, of everything that is made from the results in a folder of experiments."""
    study = Study.of(read_results("study", experiments))
    others = {name: read_results(name, experiments) for name in ("track_b_executed", "verl_sft", "quickstart_choices")}
    return texts(study, others) | pictures(study)


def texts(study: Study, others: dict[str, dict | None]) -> dict[str, bytes]:
    """The macros, the tables and the README."""
    said = statements(study, others)
    files = {"generated/macros.tex": macros({name: escape(text) for name, text in said.items()})}
    files |= {f"generated/table_{name}.tex": text.rstrip() + "\n" for name, text in all_tables(study, others).items()}
    return {name: text.encode() for name, text in (files | {"README.md": readme(study, said)}).items()}


def pictures(study: Study) -> dict[str, bytes]:
    """The figures, each with the LaTeX that includes it, or that says that it has not been run."""
    files = {}
    for name, pdf in (("cost", figures.draw_cost(study)), ("curves", figures.draw_curves(study))):
        included = f"\\includegraphics[width=\\linewidth]{{generated/{name}.pdf}}"
        files[f"generated/figure_{name}.tex"] = f"{included if pdf else NOT_RUN}\n".encode()
        if pdf:
            files[f"generated/{name}.pdf"] = pdf
    return files


def statements(study: Study, others: dict[str, dict | None]) -> dict[str, str]:
    """Macro -> plain text, of every figure and finding that the text quotes."""
    main = study.main_model
    return {
        "progressOfStudy": sentences.progress(study),
        "findings": sentences.tally(study),
        "againstZeroShot": sentences.compared(study, main, "zero-shot"),
        "againstFewShot": sentences.compared(study, main, "few-shot"),
        "againstClassical": sentences.compared(study, main, "classical"),
        "againstFull": sentences.compared(study, main, "full"),
        "otherModels": sentences.on_other_models(study),
        "costOfRuns": sentences.cost(study),
        "spreadOfSeeds": sentences.seeds(study),
        "learningCurves": sentences.curves(study),
        "forgettingFound": sentences.forgetting(study),
        "ratesChosen": sentences.rates(study),
        "errorCauses": sentences.errors(study),
        "energyUsed": sentences.energy(study),
        "wattsAssumed": str(sentences.WATTS),
        "executedFound": sentences.executed(others["track_b_executed"]),
        "publishedFound": sentences.published(others["verl_sft"]),
        "choicesFound": sentences.choices(others["quickstart_choices"]),
    }


def all_tables(study: Study, others: dict[str, dict | None]) -> dict[str, str]:
    """Name -> LaTeX of every table."""
    second = next((one["model"] for one in study.models if one["model"] != study.main_model), "")
    return {
        "models": tables.models(study),
        "tasks": tables.tasks(study),
        "rates": tables.rates(study),
        "main": tables.quality(study, study.main_model),
        "second": tables.quality(study, second),
        "further": tables.further(study, study.main_model),
        "against": tables.against(study, study.main_model),
        "forgetting": tables.forgetting(study),
        "causes": tables.causes(study),
        "examples": tables.examples(study),
        "executed": tables.executed(others["track_b_executed"]),
        "published": tables.published(others["verl_sft"]),
        "choices": tables.choices(others["quickstart_choices"]),
    }


def readme(study: Study, said: dict[str, str]) -> str:
    """README.md of the paper, from its template."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    return environment.get_template("README.md.j2").render(study=study, said=said)


if __name__ == "__main__":
    sys.exit(run_command(main))
