"""Rejection-sampling fine-tuning in rounds: a model is trained on those of its own answers that pass their checks.

    python self_improve.py --model MODEL --pairs pairs/ --out runs/self [--corpus corpus/] [--rounds 2]

    model ──► answers to the training tasks ──► those that pass, + gold ──► train_sft.py ──► adapter ──► next round
                                                                                                └──► held-out tasks

Each round trains a new adapter on the base model (STaR, arXiv:2203.14465) and answers with the last one. A round is a
folder with its answers, its pairs and a run of train_sft.py. Rerun the command to resume.
"""

from __future__ import annotations

import hashlib
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import train_sft
from common.console import UserError, run_command
from common.files import read_json, read_text, write_json
from common.options import as_settings, option, parse
from data.checks import EXECUTED
from data.instruct.local_model import LocalModel
from data.rejection_sampling import executed_pairs, program, round_summary, write_round
from eval.change_table import number, table
from eval.code.ask import ask
from eval.code.grade import grade
from eval.code.task_files import read_code_tasks
from eval.code.tasks import CodeTask
from eval.compare import compare
from eval.instruct import GREEDY, answer_pairs, grade_answers
from eval.model_options import LESS_MEMORY, AskOptions, asked_model
from eval.perplexity import perplexity
from eval.source_files import drawn_files, read_files
from model.decoder import Decoder
from model.device import DTYPES
from model.tokenizer import Tokenizer
from model.weights import model_sha256

ROUNDS = "the rounds"
TRAINING = "training"
MEASURING = "measuring"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of this command."""

    GROUPS = (ROUNDS, TRAINING, MEASURING)

    model: str = option(help="folder, .gguf file, hub id or embedded default; an instruction-tuned model")
    pairs: Path = option(help="folder of data.instruct: train.jsonl, test.jsonl", metavar="DIR")
    out: Path = option(help="folder of the rounds", metavar="RUN")
    rounds: int = option(2, "rounds of answering and training", ROUNDS, least=1)
    samples: int = option(8, "answers per training task and round", ROUNDS, least=1)
    temperature: float = option(0.8, "temperature of these answers", ROUNDS, least=0)
    keep: int = option(2, "different passing answers of a task to keep", ROUNDS, least=1)
    gold_share: float = option(
        0.5, "share of the pairs that are the repository's own, 0 to 1 (excluded)", ROUNDS, least=0
    )
    max_new_tokens: int = option(256, "tokens of an answer at most", ROUNDS, least=1)
    chat_template: str | None = option(
        None, "Jinja file (default: the model's own template); a base model without one needs it", TRAINING,
        metavar="FILE",
    )  # fmt: skip
    recipe: Path | None = option(None, "recipe for train_sft.py (TOML)", TRAINING, metavar="FILE")
    epochs: float = option(2.0, "passes over a round's pairs", TRAINING, least=0)
    lr: float = option(2e-4, "peak learning rate", TRAINING, least=0)
    corpus: Path | None = option(
        None, "corpus of data.corpus, to measure what is forgotten of its held-out files", MEASURING, metavar="DIR"
    )
    held_out_files: int = option(0, "of these files, how many are measured (0: all)", MEASURING, least=0)
    held_out_tokens: int = option(0, "tokens of each, from its start (0: all)", MEASURING, least=0)
    code_tasks: str | None = option(
        None, "mbpp, humaneval or a file of code tasks, to measure what is forgotten beyond the repository", MEASURING,
        metavar="TASKS",
    )  # fmt: skip
    test_samples: int = option(
        4, "sampled answers per held-out task, for pass@3 (at least 4; 0: none)", MEASURING, least=0
    )
    sampled_tasks: int | None = option(None, "held-out tasks that are also sampled (default: all)", MEASURING, least=1)
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    dtype: str = option("auto", "compute dtype, as of train_sft.py", choices=("auto", *DTYPES))
    seed: int = option(0, "seed of training and of every draw")

    def __post_init__(self) -> None:
        """UserError for values that make no sense."""
        if not self.gold_share < 1:
            raise UserError(f"--gold-share {self.gold_share:g}: give less than 1")
        if 1 <= self.test_samples <= 3:
            raise UserError(f"--test-samples {self.test_samples}: pass@3 needs at least 4; give 0 to omit it")


def main() -> None:
    """Measure the base, then run each round that is not done: answer, keep, train, measure. Ends in a table."""
    options = parse(Options, description=__doc__)
    pairs = executed_pairs(str(options.pairs / "train.jsonl"))
    held_out = read_held_out(options)
    refuse_other_run(options)

    adapter: Path | None = None
    rounds = [measured(options, held_out, adapter, options.out / "base")]
    write_json(options.out / "self_improve.json", settings_of(options))
    for number_of_round in range(1, options.rounds + 1):
        folder = options.out / f"round-{number_of_round}"
        print(f"\nround {number_of_round} of {options.rounds}")
        rounds[-1]["answers"] = answer(options, pairs, adapter, folder)
        adapter = trained(options, folder)
        rounds.append(measured(options, held_out, adapter, folder))
        write_json(options.out / "results.json", {"schema": 1, "settings": settings_of(options), "rounds": rounds})
    print(f"\n{rounds_table(rounds)}")
    base, last = (read_json(options.out / name / "test.json") for name in ("base", f"round-{options.rounds}"))
    print(f"\nbase and round {options.rounds}\n{table(base, last, compare(base, last))}")


def settings_of(options: Options) -> dict:
    """What decides the numbers: everything but the number of rounds, which may grow."""
    return as_settings(options, without=("out", "rounds", "device"))


def refuse_other_run(options: Options) -> None:
    """UserError when --out holds rounds with other settings."""
    path = options.out / "self_improve.json"
    if path.is_file():
        before = read_json(path)
        if odd := [name for name, value in settings_of(options).items() if before.get(name) != value]:
            was = ", ".join(f"--{name.replace('_', '-')} {before.get(name)}" for name in odd)
            raise UserError(f"{options.out}: holds rounds with {was}; give another --out, or remove that folder")
    elif options.out.exists() and (not options.out.is_dir() or any(options.out.glob("round-*"))):
        raise UserError(f"{options.out}: exists and holds no rounds of this command; give another --out")


def answer(options: Options, pairs: list[dict], adapter: Path | None, folder: Path) -> dict:
    """The round's pairs, from answers of the base (no adapter) or of the last round; the summary. Done once."""
    if not (folder / "about.json").is_file():
        with asked_model(asking(options, adapter)) as (decoder, tokenizer):
            model = LocalModel(
                options.model, decoder, tokenizer, sha256=identity(options, adapter),
                cache=folder / "answers.sqlite", temperature=options.temperature, max_tokens=options.max_new_tokens,
            )  # fmt: skip
            write_round(
                model, pairs, folder, samples=options.samples, most=options.keep, gold_share=options.gold_share,
                seed=options.seed, settings=settings_of(options),
            )  # fmt: skip
    summary = read_json(folder / "about.json")["summary"]
    print(round_summary(summary))
    return summary


def trained(options: Options, folder: Path) -> Path:
    """The adapter that train_sft.py makes from the round's pairs: of a finished run, a resumed one or a new one."""
    run = folder / "run"
    if not (run / "metrics.json").is_file():
        command = {
            "model": options.model, "data": folder / "train.jsonl", "out": run, "epochs": options.epochs,
            "lr": options.lr, "device": options.device, "dtype": options.dtype, "seed": options.seed,
        }  # fmt: skip
        command |= {"config": options.recipe} if options.recipe else {}
        command |= {"chat-template": options.chat_template} if options.chat_template else {}
        arguments = [part for name, value in command.items() for part in (f"--{name}", str(value))]
        train_sft.main([*arguments, "--resume"] if (run / "config.json").is_file() else arguments)
    return run / "adapter"


@dataclass(frozen=True)
class HeldOut:
    """What every model is measured on."""

    tasks: list[dict]  # executed instruction pairs
    files: list[tuple[str, str]]  # (path, text) of the corpus's test side, for perplexity
    code_tasks: list[CodeTask]


def read_held_out(options: Options) -> HeldOut:
    """The held-out data that the options name. UserError for what cannot be read."""
    pairs = executed_pairs(str(options.pairs / "test.jsonl"))
    return HeldOut(
        tasks=[pair for pair in pairs if pair["check"]["kind"] in EXECUTED],
        files=drawn_files(read_files(options.corpus), options.held_out_files) if options.corpus else [],
        code_tasks=read_code_tasks(options.code_tasks) if options.code_tasks else [],
    )


def measured(options: Options, held_out: HeldOut, adapter: Path | None, folder: Path) -> dict:
    """Results of the base (no adapter) or of a round on all held-out data. Written to the folder, done once."""
    measures = {"test": measure_tasks}
    measures |= {"perplexity": measure_files} if held_out.files else {}
    measures |= {"code": measure_code} if held_out.code_tasks else {}
    missing = {name: measure for name, measure in measures.items() if not (folder / f"{name}.json").is_file()}
    if missing:
        with asked_model(asking(options, adapter)) as (decoder, tokenizer):
            for name, measure in missing.items():
                write_json(folder / f"{name}.json", measure(options, held_out, decoder, tokenizer))
    found = {name: read_json(folder / f"{name}.json") for name in measures}
    told = {name: {key: result[key] for key in ("metrics", "intervals", "n")} for name, result in found.items()}
    return told | {"diversity": diversity(found["test"]["results"])}


def measure_tasks(options: Options, held_out: HeldOut, decoder: Decoder, tokenizer: Tokenizer) -> dict:
    """The held-out instruction tasks, executed."""
    answers = answer_pairs(
        decoder, tokenizer, held_out.tasks, samples=options.test_samples, sampled=options.sampled_tasks,
        temperature=options.temperature, top_p=1.0, max_new_tokens=options.max_new_tokens, seed=options.seed,
    )  # fmt: skip
    return grade_answers(held_out.tasks, answers)


def measure_files(options: Options, held_out: HeldOut, decoder: Decoder, tokenizer: Tokenizer) -> dict:
    """Perplexity of the held-out files: what is forgotten of plain code."""
    return perplexity(decoder, tokenizer, held_out.files, most_tokens=options.held_out_tokens or None)


def measure_code(options: Options, held_out: HeldOut, decoder: Decoder, tokenizer: Tokenizer) -> dict:
    """Greedy answers to code tasks from elsewhere: what is forgotten beyond the repository."""
    answers = ask(
        decoder, tokenizer, held_out.code_tasks, chat=tokenizer.chat_template is not None, samples=0,
        temperature=0.0, top_p=1.0, max_new_tokens=512, seed=options.seed,
    )  # fmt: skip
    return grade(held_out.code_tasks, answers, ks=(1,))


def diversity(rows: list[dict]) -> dict:
    """Of the sampled answers to held-out tasks: distinct programs a task, and characters an answer."""
    programs: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row["sample"] != GREEDY:
            programs[row["id"]].add(program(row))
    greedy = [len(row["output"]) for row in rows if row["sample"] == GREEDY]
    distinct = sum(map(len, programs.values())) / len(programs) if programs else None
    return {"distinct": distinct, "characters": sum(greedy) / len(greedy)}


def asking(options: Options, adapter: Path | None) -> AskOptions:
    """The base (no adapter) or a round's model, with the template that all rounds share."""
    return AskOptions(
        model=options.model,
        adapter=str(adapter) if adapter else None,
        chat_template=options.chat_template,
        device=options.device,
        dtype=options.dtype,
    )


def identity(options: Options, adapter: Path | None) -> str:
    """A hash of the model's files, the adapter's and the template that was given."""
    digest = hashlib.sha256(model_sha256(options.model).encode())
    if options.chat_template:
        digest.update(read_text(options.chat_template).encode())
    for path in sorted(adapter.rglob("*")) if adapter else []:
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def rounds_table(rounds: list[dict]) -> str:
    """A line per model: its pass rates on training and held-out tasks, diversity, length, hallucination, perplexity.

    The last model answers no training tasks.
    """
    head = (
        "round", "train passed", "solved", "pass@1", "pass@3", "distinct", "characters", "invented", "perplexity",
        "code pass@1",
    )  # fmt: skip
    lines: list[tuple[str, ...]] = [head]
    for index, one in enumerate(rounds):
        answers, metrics = one.get("answers", {}), one["test"]["metrics"]
        values = [
            answers.get("passed"), answers.get("solved"), metrics.get("pass@1"), metrics.get("pass@3"),
            one["diversity"]["distinct"], one["diversity"]["characters"], metrics.get("hallucination_rate"),
            one.get("perplexity", {}).get("metrics", {}).get("perplexity"),
            one.get("code", {}).get("metrics", {}).get("pass@1"),
        ]  # fmt: skip
        lines.append((str(index or "base"), *("-" if value is None else number(value) for value in values)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


if __name__ == "__main__":
    sys.exit(run_command(main, needs_less_with=LESS_MEMORY))
