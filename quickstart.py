"""All three tracks on real code and real weights, small enough for two CPU cores; ends in a table and a report.

    python quickstart.py                 about half an hour on two cores, minutes on a GPU
    python quickstart.py --smoke         the same in three to four minutes, too small to learn much

It makes the data, then runs the three training scripts and prints their commands. Rerun it with the same --out to
resume.
"""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import train_cpt
import train_embed
import train_sft
from common.console import UserError, run_command
from common.files import read_json, write_json, write_jsonl
from common.options import as_settings, option, parse
from data.card import write_data_card
from data.checks.prove import KINDS
from data.corpus import build_corpus, corpus_summary, load_corpus, save_corpus
from data.instruct import build_instruction_pairs, instruction_summary
from data.pairs import build_text_code_pairs
from eval.change_table import table
from eval.report import write_report
from model import load_decoder, load_encoder
from notebooks import build
from training.stopwatch import Stopwatch

EXTRAS = ("gguf", "ruff", "licenseclassifier")
CORPUS = "package:networkx"
TEST_SHARE = 0.4  # of the files: enough functions with a check for 120 executed tasks
SHARES = {"bugfix": 0.5, "complete": 0.3}  # of the instruction pairs: what running the answer decides
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of this command."""

    out: Path | None = option(None, "folder of the run (default: runs/quickstart, or runs/smoke)", metavar="RUN")
    smoke: bool = option(False, "take a few steps of everything, in three to four minutes")
    corpus: str = option(CORPUS, "SOURCE to learn from", metavar="SOURCE")
    lm: str = option("smollm2-135m", "causal LM of tracks A and B", metavar="MODEL")
    embedder: str = option("all-minilm-l6-v2", "encoder of track C", metavar="MODEL")
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    seed: int = option(0, "seed of every draw")
    notebook: bool = option(False, "write report.ipynb beside report.html: the results with the code that draws them")

    @property
    def folder(self) -> Path:
        """--out, or its default."""
        return self.out or Path("runs") / ("smoke" if self.smoke else "quickstart")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much of everything, and roughly how long each part then takes on two CPU cores."""

    cpt_tokens: int  # to train on
    cpt_epochs: int
    held_out_files: int
    held_out_tokens: int  # of each file, from its start
    pairs: int  # instruction pairs to train on
    input_characters: int  # of an instruction and its input, at most
    output_characters: int  # of an answer, at most
    tasks: int  # held-out instruction tasks
    sampled_tasks: int  # of these, how many are also sampled
    samples: int  # sampled answers of such a task, besides the greedy one
    new_tokens: int  # of an answer, at most
    sft_epochs: int
    text_code_pairs: int
    queries: int  # held-out
    embed_epochs: int
    expected_seconds: dict[str, int]  # by part: data, cpt, sft, embed


FULL = Sizes(
    cpt_tokens=41_000,
    cpt_epochs=2,
    held_out_files=20,
    held_out_tokens=1024,
    pairs=240,
    input_characters=1500,
    output_characters=1000,
    tasks=170,
    sampled_tasks=24,
    samples=4,
    new_tokens=384,
    sft_epochs=2,
    text_code_pairs=400,
    queries=240,
    embed_epochs=4,
    expected_seconds={"data": 240, "cpt": 360, "sft": 1200, "embed": 210},
)
SMOKE = Sizes(
    cpt_tokens=4_096,
    cpt_epochs=1,
    held_out_files=6,
    held_out_tokens=512,
    pairs=24,
    input_characters=900,
    output_characters=400,
    tasks=12,
    sampled_tasks=4,
    samples=4,
    new_tokens=48,
    sft_epochs=1,
    text_code_pairs=64,
    queries=40,
    embed_epochs=1,
    expected_seconds={"data": 20, "cpt": 50, "sft": 50, "embed": 50},
)
TRACKS = {
    "cpt": (train_cpt, "track A: continued pre-training"),
    "sft": (train_sft, "track B: instruction tuning"),
    "embed": (train_embed, "track C: embedding tuning"),
}


class Timetable:
    """Announces each part with the time elapsed and an estimate of the time left."""

    def __init__(self, expected: dict[str, int]) -> None:
        self.expected, self.stopwatch = expected, Stopwatch()

    def announce(self, what: str) -> None:
        """Print what comes next. The estimate is scaled by how the finished parts compare with their expectation."""
        seconds = self.stopwatch.seconds
        done = sum(self.expected[part] for part in seconds)
        pace = max(0.3, sum(seconds.values()) / done) if done else 1.0
        left = pace * sum(expected for part, expected in self.expected.items() if part not in seconds)
        elapsed = self.stopwatch.elapsed()
        print(
            f"\n[{elapsed // 60:.0f}:{elapsed % 60:02.0f}] {what} · about {max(1, round(left / 60))} min left",
            flush=True,
        )

    def finished(self, part: str) -> None:
        """Record how long a part took."""
        self.stopwatch.split(part)


def main(arguments: list[str] | None = None) -> None:
    """Run the parts that are not done yet, then write the report."""
    options = parse(Options, arguments, description=__doc__)
    if options.notebook:
        build.need_all()
    out = options.folder
    sizes = SMOKE if options.smoke else FULL
    settings = {name: str(value) for name, value in as_settings(options, without=("out", "device", "notebook")).items()}
    refuse_other_run(out, settings)
    install_extras()
    amounts = {name: value for name, value in asdict(sizes).items() if name != "expected_seconds"}
    print("sizes    " + " · ".join(f"{name} {value}" for name, value in amounts.items()))

    # the data, then the three tracks
    timetable = Timetable(sizes.expected_seconds)
    timetable.announce("data: a corpus, instruction pairs that are executed, text–code pairs")
    make_data(options, sizes, settings)
    timetable.finished("data")
    tracks = {}
    for name, (script, what) in TRACKS.items():
        timetable.announce(what)
        tracks[name] = run_track(name, script, command_line(track_options(name, options, sizes)))
        timetable.finished(name)

    # metrics.json, the report, a table per track
    seconds = {part: round(value, 1) for part, value in timetable.stopwatch.seconds.items()}
    for name in tracks:
        stages = read_json(out / name / "metrics.json")["seconds"]
        seconds |= {f"{name}_{stage}": value for stage, value in stages.items()}
    seconds["total"] = round(timetable.stopwatch.elapsed(), 1)
    metrics = {"schema": 1, "seconds": seconds, "tracks": tracks, "sizes": amounts, "settings": settings}
    write_json(out / "metrics.json", metrics)
    title = f"tritune on {options.corpus}"
    reports = [write_report(out, title=title)]  # validates metrics.json by its schema
    if options.notebook:
        reports.append(build.write_report_notebook(out, title=title))
    for name in tracks:
        before, after = (read_json(out / name / f"{when}.json") for when in ("before", "after"))
        print(f"\n{name}\n{table(before, after, tracks[name]['change'])}")
    print(f"\ntook     {seconds['total'] / 60:.1f} minutes")
    for report in reports:
        print(f"report   {report.resolve()}")


def make_data(options: Options, sizes: Sizes, settings: dict, shares: dict[str, float] = SHARES) -> None:
    """Write the corpus (unless it exists), instruction pairs, text–code pairs and their data card.

    Loads the models and the source before writing anything, so that bad input leaves no files.
    """
    out = options.folder
    if (out / "data_card.md").is_file():
        print(f"data     already made ({out})")
        return
    if not (out / "corpus").is_dir():
        load_decoder(options.lm)
        load_encoder(options.embedder)
        corpus = build_corpus(options.corpus, test_share=TEST_SHARE, seed=options.seed)
        write_json(out / "quickstart.json", settings)
        save_corpus(corpus, out / "corpus")
    corpus = load_corpus(out / "corpus")
    print(corpus_summary(corpus))
    pairs = build_instruction_pairs(
        corpus,
        count=sizes.pairs,
        test_count=sizes.tasks,
        validation_count=sizes.tasks // 5,
        most_input=sizes.input_characters,
        most_output=sizes.output_characters,
        shares=shares,
        seed=options.seed,
        checks=("doctest",) if options.corpus == CORPUS else KINDS,  # running its 7,000 tests would take minutes
    )
    for split in ("train", "validation", "test"):
        write_jsonl(out / "pairs" / f"{split}.jsonl", pairs.split(split))
    write_jsonl(out / "pairs" / "rejects.jsonl", pairs.rejects)
    print(instruction_summary(pairs))
    codes = build_text_code_pairs(corpus, count=sizes.text_code_pairs, test_count=sizes.queries, seed=options.seed)
    for name in ("train", "test", "candidates", "rejects"):
        write_jsonl(out / "codes" / f"{name}.jsonl", getattr(codes, name))
    print(f"codes    {len(codes.train)} pairs, {len(codes.test)} held-out queries, {len(codes.candidates)} candidates")
    for folder in (out / "pairs", out / "codes", out):
        write_data_card(folder, corpus=corpus, instruct=pairs, pairs=codes)


def track_options(track: str, options: Options, sizes: Sizes) -> dict[str, object]:
    """The options of a track's script, by name."""
    out = options.folder
    return {
        "cpt": {
            "model": options.lm,
            "corpus": out / "corpus",
            "most-tokens": sizes.cpt_tokens,
            "epochs": sizes.cpt_epochs,
            "step-tokens": 1024,
            "lr": 1e-3,
            "validate-every": 20,
            "held-out-files": sizes.held_out_files,
            "held-out-tokens": sizes.held_out_tokens,
        },
        "sft": {
            "model": options.lm,
            "data": out / "pairs" / "train.jsonl",
            "validation": out / "pairs" / "validation.jsonl",
            "test": out / "pairs" / "test.jsonl",
            "epochs": sizes.sft_epochs,
            "max-length": 1024,
            "step-tokens": 2048,
            "lr": 5e-4,
            "samples": sizes.samples,
            "sampled-tasks": sizes.sampled_tasks,
            "max-new-tokens": sizes.new_tokens,
        },
        "embed": {
            "model": options.embedder,
            "data": out / "codes" / "train.jsonl",
            "test": out / "codes" / "test.jsonl",
            "candidates": out / "codes" / "candidates.jsonl",
            "epochs": sizes.embed_epochs,
        },
    }[track] | {"out": out / track, "device": options.device, "seed": options.seed}


def command_line(chosen: dict[str, object]) -> list[str]:
    """Options by name as a command line."""
    return [part for name, value in chosen.items() for part in (f"--{name}", str(value))]


def run_track(name: str, script, command: list[str]) -> dict:
    """A track's part of metrics.json: of a finished run, a resumed one or a new one."""
    folder = Path(command[command.index("--out") + 1])
    if (folder / "metrics.json").is_file():
        print(f"{name} is already done ({folder}); remove that folder to run it again")
        return read_json(folder / "metrics.json")["tracks"][name]
    command = [*command, "--resume"] if (folder / "config.json").is_file() else command
    print(f"$ python {script.__name__}.py {' '.join(command)}", flush=True)
    return script.main(command)


def refuse_other_run(out: Path, settings: dict) -> None:
    """UserError when --out holds anything but a quickstart with these settings."""
    if (out / "quickstart.json").is_file():
        before = read_json(out / "quickstart.json")
        odd = [name for name in settings if before.get(name) != settings[name]]
        if odd:
            was = ", ".join(f"{name} {before.get(name)}" for name in odd)
            raise UserError(f"{out}: holds a quickstart with {was}; give another --out, or remove that folder")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists and is not a quickstart; give another --out")


def install_extras() -> None:
    """Install the missing extra packages. UserError if pip fails."""
    missing = [name for name in EXTRAS if importlib.util.find_spec(name) is None]
    if not missing:
        return
    print(f"installing the extra packages {', '.join(missing)} (pyproject.toml, extras)", flush=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--editable", f"{HERE}[extras]"]
    done = subprocess.run(command, check=False)
    importlib.invalidate_caches()
    if done.returncode or any(importlib.util.find_spec(name) is None for name in missing):
        raise UserError(f"{', '.join(missing)} could not be installed; try: pip install -e '.[extras]'")


if __name__ == "__main__":
    less = "a smaller --lm or --embedder, or --device cpu; finished parts are kept"
    sys.exit(run_command(main, needs_less_with=less))
