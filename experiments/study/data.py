"""The data of the study: the same rows for every model, method and seed.

DATA/trec, pubmedqa, scitldr  imported, then cut to the sizes of the grid; a training set is part of each larger one
CORPUS                        its functions as executed tasks: bugs to fix, bodies to complete
texts.jsonl                   what forgetting is measured on: files of the corpus's test split, and abstracts of papers
                              that no task uses
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from common.console import UserError
from common.files import read_jsonl, write_jsonl
from common.shuffle import seeded_order
from data.corpus import SPLITS, load_corpus
from data.rows import conversation_of
from eval.text.shots import choose_shots
from experiments.stages import Stage, stage
from experiments.study.grid import SHOTS, Run, Task

SEED = 0  # of every draw
FEW_SHOT_TEST = f"test-{SHOTS}-shot"  # the test rows of executed tasks with solved ones before them
ENGLISH = "scitldr"  # its validation rows, beyond those that choose learning rates
CODE_TEXTS, ENGLISH_TEXTS = 24, 30
CODE_CHARACTERS = 1200  # of a file, from its start


def data_stages(out: Path, public: Path, corpus: str, tasks: Sequence[Task]) -> list[Stage]:
    """The commands that make the rows, before they are cut to size."""
    stages = [
        stage(
            out / "imported" / name / "about.json", "-m", "data.importing", public / name, "--out",
            out / "imported" / name, "--seed", SEED,
        )
        for name in public_sets(tasks)
    ]  # fmt: skip
    folder = out / "corpus"
    split = ("-m", "data.corpus", corpus, "--out", folder, "--test-share", 0.4, "--seed", SEED)
    stages.append(stage(folder / "corpus.json", *split))
    for task in (one for one in tasks if one.kind == "code"):
        pairs = (
            "-m", "data.instruct", folder, "--out", out / "imported" / task.name, "--count", task.rows,
            "--validation-count", task.validation, "--test-count", 2 * task.test, "--share", "bugfix=0.55",
            "complete=0.45", "--checks", "doctest", "--most-input", 1500, "--most-output", 700, "--seed", SEED,
        )  # fmt: skip
        stages.append(stage(out / "imported" / task.name / "about.json", *pairs))
    return stages


def public_sets(tasks: Sequence[Task]) -> list[str]:
    """The data sets that are read: those of the tasks, and the one whose abstracts forgetting is measured on."""
    return list(dict.fromkeys([*(task.name for task in tasks if task.kind != "code"), ENGLISH]))


def refuse_missing(public: Path, tasks: Sequence[Task]) -> None:
    """UserError for a public data set that is not there."""
    for name in public_sets(tasks):
        if not (public / name).is_dir():
            raise UserError(f"{public / name}: no such folder; --data needs the files of {name} there")


def cut_to_size(out: Path, runs: Sequence[Run], *, abstracts_used: int) -> None:
    """Write data/TASK/train-N.jsonl for each size that a run has, validation and test rows, and data/texts.jsonl.

    abstracts_used  validation rows of ENGLISH that choose learning rates, in this call's tasks or not
    """
    for task in tasks_of(runs):
        splits = {split: read_jsonl(out / "imported" / task.name / f"{split}.jsonl") for split in SPLITS}
        if task.kind == "code":
            splits["test"] = one_per_function(splits["test"])
        train = drawn(splits["train"], None)
        for rows in {run.rows for run in runs if run.task == task}:
            write_jsonl(train_file(out, task, rows), train[:rows])
        for split, count in (("validation", task.validation), ("test", task.test)):
            write_jsonl(data_file(out, task, split), drawn(splits[split], count))
        if task.kind == "code":
            test = drawn(splits["test"], task.test)
            write_jsonl(data_file(out, task, FEW_SHOT_TEST), after_shots(test, train[: task.rows]))
    write_jsonl(out / "data" / "texts.jsonl", texts(out, abstracts_used))


def tasks_of(runs: Sequence[Run]) -> list[Task]:
    """The tasks that runs have, in their order."""
    return list(dict.fromkeys(run.task for run in runs))


def train_file(out: Path, task: Task, rows: int | None) -> Path:
    """The training rows of a size."""
    return data_file(out, task, f"train-{rows or 'all'}")


def data_file(out: Path, task: Task, name: str) -> Path:
    """Rows of a task, ready for every run."""
    return out / "data" / task.name / f"{name}.jsonl"


def drawn(rows: list[dict], count: int | None) -> list[dict]:
    """`count` rows (None: all) in an order that depends on their ids alone: the first ones are a part of more."""
    by_id = {str(row["id"]): row for row in rows}
    return [by_id[name] for name in seeded_order(list(by_id), SEED)[:count]]


def one_per_function(pairs: list[dict]) -> list[dict]:
    """One task of each function, so that tasks are independent."""
    first: dict[tuple, dict] = {}
    for pair in drawn(pairs, None):
        first.setdefault((pair["source"]["path"], pair["source"]["qualname"]), pair)
    return [*first.values()]


def after_shots(test: list[dict], train: list[dict]) -> list[dict]:
    """The pairs with solved training pairs as earlier turns: what eval.text does with --shots."""
    turns = [
        [message["content"] for message in conversation_of(row).messages[-2:]]
        for row in choose_shots(train, SHOTS, where="training pairs", seed=SEED)
    ]
    return [pair | {"history": turns} for pair in test]


def texts(out: Path, abstracts_used: int) -> list[dict]:
    """Rows {"id", "text"}: code/PATH, a file's beginning, and english/ID, an abstract that no task uses."""
    files = [
        {"id": file.path, "text": file.text[:CODE_CHARACTERS]} for file in load_corpus(out / "corpus").split("test")
    ]
    papers = drawn(read_jsonl(out / "imported" / ENGLISH / "validation.jsonl"), None)[abstracts_used:]
    abstracts = [{"id": row["id"], "text": row["document"]} for row in papers]
    kinds = {"code": drawn(files, CODE_TEXTS), "english": drawn(abstracts, ENGLISH_TEXTS)}
    return [row | {"id": f"{kind}/{row['id']}"} for kind, of_kind in kinds.items() for row in of_kind]
