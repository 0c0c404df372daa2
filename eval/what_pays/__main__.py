"""What pays on a repository: tuning, search, both, or neither? The same held-out tasks, answered in every way.

    python -m eval.what_pays REPO --model M --out DIR
    python -m eval.what_pays runs/corpus --model M --pairs runs/pairs --adapter A=runs/cpt/adapter B=runs/sft/adapter
        --embedder minilm=all-minilm-l6-v2 tuned=runs/embed/model --out DIR

    for the base and each adapter:      no search │ search by each encoder
    measured on the held-out side:      executed tasks (pass@1, pass@3) │ perplexity of files │ minutes, seconds, memory

Search finds code of the training side alone, and never what holds the answer. Changes from the base are paired, with
Holm's correction. DIR gets what_pays.json, .md and .svg; rerun the command to resume.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.console import UserError, run_command
from common.files import read_json, write_json, write_jsonl, write_text
from common.options import as_settings, name_and_value, option, parse
from data.checks import EXECUTED
from data.corpus import Corpus, build_corpus, load_corpus, save_corpus
from data.instruct.build import build_instruction_pairs
from data.rejection_sampling import executed_pairs
from data.search.context import with_passages
from data.search.results import open_search, search_encoder
from eval.environment import environment
from eval.instruct import answer_pairs, grade_answers
from eval.model_options import LESS_MEMORY, MEASURE, MODEL, SAMPLING, SANDBOX, ComputeOptions, SampleOptions
from eval.perplexity import document_of, nats_of, summary
from eval.source_files import drawn_files
from eval.what_pays.findings import Arm, arms_of, findings, folder_of, picture, table
from eval.what_pays.reading import Reader, index_training_files, pieces
from lora.adapter import Adapter, folded, use_adapter
from lora.adapter_file import load_adapter, read_provenance
from lora.adapter_tokenizer import load_trained_tokenizer
from lora.frozen_weight import QUANTIZE
from model import load_decoder
from model.decoder import Decoder
from model.device import choose_device, choose_dtype
from model.memory import peak_memory, reset_peak
from model.tokenizer import Tokenizer
from model.weights import weights_sha256
from sandbox.run import protection

DEFAULT_EMBEDDER = "all-minilm-l6-v2"
TEST_SHARE = 0.3  # of the files, where the corpus is made here: enough for a hundred tasks
BEFORE, PIECE = 256, 256  # tokens of a file that the model has read, and that it predicts at once
SEARCH = "search"


@dataclass(frozen=True, kw_only=True)
class Options(ComputeOptions, SampleOptions):
    """Options of this command."""

    GROUPS = (MEASURE, MODEL, SEARCH, SAMPLING, SANDBOX)

    repo: str = option(help="folder of data.corpus, whose split is used, or any SOURCE that it takes", positional=True)
    out: Path = option(help="folder of the result", metavar="DIR")
    model: str = option(help="folder, .gguf file, hub id or embedded default; an instruction-tuned model", group=MODEL)
    adapter: tuple[str, ...] = option(
        (), "adapters trained on the corpus's training side (default: none)", MODEL, metavar="[NAME=]DIR", nargs="*"
    )
    quantize: str = option("none", "--model's linear layers in 8 or 4 bits", MODEL, choices=tuple(QUANTIZE))
    embedder: tuple[str, ...] = option(
        (DEFAULT_EMBEDDER,), "encoders that search", SEARCH, metavar="[NAME=]MODEL", nargs="+"
    )
    index_tokens: int = option(768, "tokens of found code that a model reads, at most", SEARCH, least=1)
    pairs: Path | None = option(
        None, "folder of data.instruct with test.jsonl, made from REPO (default: made here)", MEASURE, metavar="DIR"
    )
    tasks: int = option(120, "executed tasks wanted, where pairs are made here", MEASURE, least=2)
    sampled_tasks: int = option(24, "tasks that are also sampled, for pass@3", SAMPLING, least=1)
    samples: int = option(4, "sampled answers of each of these", SAMPLING, least=4)
    max_new_tokens: int = option(400, "tokens of an answer at most", SAMPLING, least=1)
    held_out_files: int = option(20, "held-out files whose perplexity is measured (0: all)", MEASURE, least=0)
    held_out_tokens: int = option(1024, "tokens of each, from its start", MEASURE, least=2)
    max_minutes: float | None = option(None, "start nothing new after this time", metavar="M")


def main() -> None:
    """The command line: make what is missing, measure each arm that is not done, write and print what was found."""
    options = parse(Options, description=__doc__)
    started = time.monotonic()
    adapters, embedders = named(options.adapter, "--adapter"), named(options.embedder, "--embedder")
    protection(allow_unsafe_exec=options.allow_unsafe_exec)
    refuse_other_run(options)
    corpus = open_or_build_corpus(options)
    pairs = executed_tasks(options, corpus)

    device = choose_device(options.device)
    for name, model in embedders.items():
        index_training_files(corpus, search_encoder(model, options.device), options.out / "indexes" / name)
    dtype = choose_dtype(device, options.dtype)
    decoder = load_decoder(options.model, dtype=dtype, device=device, put=QUANTIZE[options.quantize])
    loaded: dict[str | None, Adapter | None] = {None: None}
    loaded |= {name: load_adapter(decoder, folder) for name, folder in adapters.items()}

    arms = arms_of(list(adapters), list(embedders))
    for number, arm in enumerate(arms, 1):
        minutes = (time.monotonic() - started) / 60
        made_of = weights_of(options, arm, adapters)
        if is_measured(folder_of(options.out, arm), made_of):
            continue
        if options.max_minutes is not None and minutes >= options.max_minutes:
            print(f"stopped  before arm {number} of {len(arms)}: time limit reached; rerun to resume")
            return
        print(f"[{minutes:.0f} min] arm {number} of {len(arms)}: {arm.name}", flush=True)
        use_adapter(decoder, loaded[arm.adapter])
        tokenizer = load_trained_tokenizer(options.model, adapters.get(arm.adapter or ""))
        minutes_trained = training_minutes(adapters.get(arm.adapter or ""), embedders.get(arm.embedder or ""))
        measured = measure(options, arm, decoder, tokenizer, corpus, pairs)
        measured["cost"]["training_minutes"], measured["made_of"] = minutes_trained, made_of
        write_json(folder_of(options.out, arm) / "answers.json", measured)
    report(options, arms)


def named(given: Sequence[str], flag: str) -> dict[str, str]:
    """{name: folder or model} from [NAME=]VALUE; the default name is the last part of a path, or the folder above it
    where that is called adapter or model. UserError for a name that is used twice."""
    found: dict[str, str] = {}
    for argument in given:
        name, value = name_and_value(argument)
        parts = [part for part in Path(value).parts if part not in ("adapter", "model")]
        name = name or (parts[-1] if parts else value)
        if name in found or name == "base":
            raise UserError(f"{flag} {argument}: the name {name} is taken; give it another: {flag} NAME={value}")
        found[name] = value
    return found


def settings_of(options: Options) -> dict:
    """What decides the numbers of an arm: not which arms there are."""
    free = ("out", "adapter", "embedder", "max_minutes", "device", "processes", "allow_unsafe_exec")
    return as_settings(options, without=free)


def refuse_other_run(options: Options) -> None:
    """UserError when --out holds arms with other settings, or something else."""
    path = options.out / "settings.json"
    if path.is_file():
        before = read_json(path)
        if odd := [name for name, value in settings_of(options).items() if before.get(name) != value]:
            raise UserError(f"{options.out}: holds arms with other {', '.join(odd)}; give another --out")
    elif options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise UserError(f"{options.out}: exists and holds no arms of this command; give another --out")


def open_or_build_corpus(options: Options) -> Corpus:
    """REPO if it is a corpus, else the corpus of it, built once. From here on --out is a folder of this command."""
    given, built = Path(options.repo), options.out / "corpus"
    saved = next((folder for folder in (given, built) if (folder / "corpus.json").is_file()), None)
    corpus = load_corpus(saved) if saved else build_corpus(options.repo, test_share=TEST_SHARE, seed=options.seed)
    write_json(options.out / "settings.json", settings_of(options))
    if not saved:
        save_corpus(corpus, built)
    return corpus


def executed_tasks(options: Options, corpus: Corpus) -> list[dict]:
    """The held-out tasks that are executed: of --pairs, or made once.

    UserError for fewer than two, and for one from a file that the index holds.
    """
    file = options.out / "pairs" / "test.jsonl" if options.pairs is None else options.pairs / "test.jsonl"
    if options.pairs is None and not file.is_file():
        made = build_instruction_pairs(
            corpus, count=0, validation_count=0, test_count=options.tasks, most_output=1000, seed=options.seed,
            shares={"bugfix": 0.55, "complete": 0.45},
        )  # fmt: skip
        write_jsonl(file, made.test)
    pairs = [pair for pair in executed_pairs(str(file)) if pair["check"]["kind"] in EXECUTED]
    if len(pairs) < 2:
        raise UserError(f"{file}: {len(pairs)} tasks that are executed; nothing can be compared")
    training = {file.path for file in corpus.split("train")}
    if seen := [pair["id"] for pair in pairs if (pair.get("source") or {}).get("path") in training]:
        raise UserError(f"{file}: {seen[0]} is from a training file of {corpus.name}; give pairs made from this corpus")
    print(f"tasks    {len(pairs)} executed ones from held-out files of {corpus.name}")
    return pairs


def training_minutes(adapter: str | None, encoder: str | None) -> float | None:
    """Minutes of training of an adapter and an encoder together, from their provenance (training/finish.py).

    None if an adapter has none. An encoder without is one that was not trained here.
    """
    minutes = 0.0
    for folder in (adapter, encoder):
        cost = read_provenance(Path(folder)).get("metrics", {}).get("cost", {}) if folder else {}
        if "seconds_per_step" in cost:
            minutes += cost["steps"] * cost["seconds_per_step"] / 60
        elif folder and folder == adapter:
            return None
    return minutes


def weights_of(options: Options, arm: Arm, adapters: dict[str, str]) -> dict[str, str | None]:
    """SHA-256 of the adapter's and of the encoder's weights: the same name may stand for others later."""
    index = options.out / "indexes" / arm.embedder if arm.embedder else None
    return {
        "adapter": weights_sha256(Path(adapters[arm.adapter])) if arm.adapter else None,
        "encoder": read_json(index / "manifest.json")["weights_sha256"] if index else None,
    }


def is_measured(folder: Path, made_of: dict[str, str | None]) -> bool:
    """Whether an arm was measured with these weights."""
    return (folder / "answers.json").is_file() and read_json(folder / "answers.json")["made_of"] == made_of


def measure(
    options: Options, arm: Arm, decoder: Decoder, tokenizer: Tokenizer, corpus: Corpus, pairs: list[dict]
) -> dict:
    """Perplexity of held-out files, written to files.json of the arm, and answers to all tasks, as an eval result."""
    reader = None
    if arm.embedder:
        search = open_search(options.out / "indexes" / arm.embedder, device=options.device)
        reader = Reader(search, corpus, tokenizer, options.index_tokens)
    reset_peak(decoder.device)
    with folded(decoder):
        # the files
        texts = drawn_files([(file.path, file.text) for file in corpus.split("test")], options.held_out_files)
        documents = [document_of(tokenizer, path, text, options.held_out_tokens) for path, text in texts if text]
        rows = nats_of(decoder, documents, lambda one: pieces(one, tokenizer, before=BEFORE, size=PIECE, reader=reader))
        files = summary(rows) | {"settings": {"before": BEFORE, "piece": PIECE}}

        # the tasks
        read = {pair["id"]: reader.passages_of(pair) if reader else [] for pair in pairs}
        asked = [pair | {"instruction": with_passages(pair["instruction"], read[pair["id"]])} for pair in pairs]
        started = time.monotonic()
        answers = answer_pairs(
            decoder, tokenizer, asked, samples=options.samples, sampled=options.sampled_tasks,
            temperature=options.temperature, top_p=options.top_p, max_new_tokens=options.max_new_tokens,
            seed=options.seed, where=str(options.pairs),
        )  # fmt: skip
        seconds = time.monotonic() - started
    cost = {
        "seconds_per_answer": seconds / len(answers),
        "seconds_per_search": statistics.median(reader.seconds) if reader else None,
        "memory_gib": peak_memory(decoder.device) / 2**30,
    }
    result = grade_answers(pairs, answers, processes=options.processes, allow_unsafe_exec=options.allow_unsafe_exec)
    result["cost"] = cost
    result["read"] = {i: [passage.place for passage in passages] for i, passages in read.items()}
    result["environment"] |= environment(decoder.device, decoder.model.norm.weight.dtype)
    write_json(folder_of(options.out, arm) / "files.json", files)
    return result


def report(options: Options, arms: list[Arm]) -> None:
    """what_pays.json, .md and .svg from the arms; prints the table and the advice."""
    found = findings(options.out, arms)
    settings = as_settings(options, without=("out", "max_minutes"))
    write_json(options.out / "what_pays.json", {"schema": 1, "settings": settings} | found)
    text = f"{table(found['rows'], found['changes'])}\n{found['advice']}\n"
    write_text(options.out / "what_pays.md", text)
    write_text(options.out / "what_pays.svg", picture(found["rows"]))
    print(f"\n{text}\n{options.out / 'what_pays.json'}")


if __name__ == "__main__":
    sys.exit(run_command(main, needs_less_with=LESS_MEMORY))
