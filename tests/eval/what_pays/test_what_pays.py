"""The command with a tiny model, its readers, and the pieces of files."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

import eval.what_pays.__main__ as what_pays
from common.console import UserError
from common.files import read_json, write_jsonl
from data.checks.check import doctest_check
from data.corpus import build_corpus, load_corpus, save_corpus
from data.corpus.functions import functions_of, source_of
from data.masking import Example
from data.search.index import build_index, open_index
from data.search.results import Search
from data.search.units import documented_units
from eval.perplexity import Document, document_of, nats_of
from eval.what_pays.reading import Reader, index_training_files, pieces
from lora.adapter import adapter_in_use, remove
from lora.adapter_file import save_adapter
from lora.inject import inject
from model import load_decoder
from model.loss import IGNORE
from tests import test_self_improve
from tests.test_self_improve import write_package
from tests.word_encoder import WordEncoder


@pytest.fixture(scope="module")
def corpus_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("what_pays")
    save_corpus(
        build_corpus(str(write_package(folder / "code")), test_share=0.5, validation_share=0.125), folder / "corpus"
    )
    return folder / "corpus"


@pytest.fixture(scope="module")
def corpus(corpus_folder):
    return load_corpus(corpus_folder)


@pytest.fixture(scope="module")
def pairs(corpus):
    """Bodies to write, of the held-out functions."""
    found = []
    for file in corpus.split("test"):
        for function in functions_of(file, min_lines=1):
            asked = {"category": "complete", "instruction": "Write the body.", "input": function.header}
            check = doctest_check(function.package, function)
            found.append(
                {"id": function.name, **asked, "output": function.body, "check": check, "source": source_of(function)}
            )
    assert len(found) >= 3
    return found


def reader_of(corpus, tokenizer, folder, files, most_tokens=10_000):
    encoder = WordEncoder()
    units = [unit for file in files for unit in documented_units(file)]
    vectors = encoder.encode([unit["code"] for unit in units], kind="passage").numpy()
    build_index(folder, vectors, units, manifest=encoder.identity())
    return Reader(Search(open_index(folder), encoder), corpus, tokenizer, most_tokens)


def test_a_task_is_read_with_training_files_alone_even_if_the_index_has_all(corpus, pairs, tokenizer, tmp_path):
    reader = reader_of(corpus, tokenizer, tmp_path, corpus.files)
    training = {file.path for file in corpus.split("train")}
    read = {passage.path for pair in pairs for passage in reader.passages_of(pair)}
    assert read and read <= training and len(reader.seconds) == len(pairs)
    assert any(file.path not in training for file in corpus.files)  # in the index, and not read


def test_a_copy_of_the_answer_in_a_training_file_is_not_read(corpus, pairs, tokenizer, tmp_path):
    reader = reader_of(corpus, tokenizer, tmp_path, corpus.files)
    pair = pairs[0]
    copied = reader.answer_of(pair)
    assert copied.startswith("def ") and pair["output"].strip() in copied  # the whole function as it stands in its file
    unit = next(unit for unit in reader.search.index.units if unit["source"]["path"] not in {
        file.path for file in corpus.files if file.split != "train"
    } and unit["kind"] == "function")  # fmt: skip
    assert unit["source"]["path"] in {passage.path for passage in reader.passages_of(pair)}
    unit["code"] = copied
    assert unit["source"]["path"] not in {passage.path for passage in reader.passages_of(pair)}


@pytest.mark.parametrize("bos", [[], [5]])
def test_the_pieces_of_a_file_predict_each_token_once_with_and_without_passages(corpus, tokenizer, tmp_path, bos):
    class WithBOS:
        prefix_ids = bos
        encode, decode = tokenizer.encode, tokenizer.decode

    file = corpus.split("test")[0]
    whole = document_of(tokenizer, file.path, file.text, 150).example
    given = Example(bos + whole.input_ids, [IGNORE] * len(bos) + whole.input_ids)
    document = Document(file.path, given, 1)
    reader = reader_of(corpus, tokenizer, tmp_path, corpus.files, most_tokens=200)
    for read_with in (None, reader):
        cut = list(pieces(document, WithBOS, before=40, size=32, reader=read_with))
        predicted = [label for piece in cut for label in piece.labels if label != IGNORE]
        assert predicted == (whole.input_ids if bos else whole.input_ids[1:])
        assert all(piece.input_ids[: len(bos)] == bos and piece.input_ids.count(5) <= 1 for piece in cut if bos)
        longest = max(len(piece.input_ids) for piece in cut)
        assert longest <= 1 + 40 + 32 if read_with is None else longest > 1 + 40 + 32


@pytest.fixture(scope="module")
def model_folder(tiny_folder, tmp_path_factory):
    return with_room(tiny_folder, tmp_path_factory.mktemp("reads") / "model")


def with_room(model, folder):
    """A copy of a model's folder, with room for passages."""
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 4096}))
    return folder


def without_prefixes(encoder, folder):
    """A copy of an encoder's folder that says that it takes no prefixes."""
    shutil.copytree(encoder, folder)
    says = {"prompts": {"query": "", "document": ""}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(says))
    return folder


def test_passages_change_what_a_file_is_predicted_from_and_not_what_is_counted(
    corpus, model_folder, tokenizer, tmp_path
):
    decoder = load_decoder(str(model_folder))
    documents = [document_of(tokenizer, file.path, file.text, 24) for file in corpus.split("test")]
    reader = reader_of(corpus, tokenizer, tmp_path, corpus.files, most_tokens=600)

    def nats(read_with):
        return nats_of(decoder, documents, lambda one: pieces(one, tokenizer, before=8, size=8, reader=read_with))

    plain, read = nats(None), nats(reader)
    assert [(row["tokens"], row["bytes"]) for row in plain] == [(row["tokens"], row["bytes"]) for row in read]
    assert all(abs(one["nll"] - other["nll"]) > 1e-3 for one, other in zip(plain, read, strict=True))


@pytest.fixture(scope="module")
def adapter_folder(model_folder, tmp_path_factory):
    """An adapter with the record of a training of two minutes."""
    decoder = load_decoder(str(model_folder))
    inject(decoder, r=2, alpha=4, targets="all-linear")
    for layer in adapter_in_use(decoder).values():
        nn.init.normal_(layer.lora_B.weight, generator=torch.Generator().manual_seed(1))
    folder = tmp_path_factory.mktemp("tuned") / "adapter"
    save_adapter(decoder, folder, base_model="tiny", task_type="CAUSAL_LM")
    remove(decoder, merge=False)
    cost = {"steps": 60, "seconds_per_step": 2.0}
    (folder / "tritune.json").write_text(json.dumps({"metrics": {"cost": cost}}))
    return folder


@pytest.fixture
def command(corpus_folder, pairs, model_folder, adapter_folder, reference_encoder, tmp_path, monkeypatch):
    write_jsonl(tmp_path / "pairs" / "test.jsonl", pairs)
    encoder = without_prefixes(reference_encoder[1], tmp_path / "encoder")

    def run(*more):
        given = [
            corpus_folder, "--pairs", tmp_path / "pairs", "--model", model_folder,
            "--adapter", f"tuned={adapter_folder}", "--embedder", f"words={encoder}", "--samples", 4,
            "--sampled-tasks", 2, "--max-new-tokens", 8, "--held-out-tokens", 60, "--index-tokens", 600,
            "--out", tmp_path / "out", *more,
        ]  # fmt: skip
        monkeypatch.setattr(sys, "argv", ["what_pays", *map(str, given)])
        what_pays.main()
        return tmp_path / "out"

    return run


def test_every_arm_answers_the_same_tasks_and_a_stopped_run_resumes(
    command, pairs, adapter_folder, monkeypatch, capsys
):
    out = command("--max-minutes", 0)
    assert "stopped  before arm 1 of 4" in capsys.readouterr().out and not (out / "what_pays.json").exists()
    asked = []
    answer_pairs = what_pays.answer_pairs

    def answered(decoder, tokenizer, given, **how):
        asked.append([pair["instruction"] for pair in given])
        return answer_pairs(decoder, tokenizer, given, **how)

    monkeypatch.setattr(what_pays, "answer_pairs", answered)
    command()
    found = read_json(out / "what_pays.json")
    assert [row["arm"] for row in found["rows"]] == [
        "base", "base + search by words", "tuned", "tuned + search by words",
    ]  # fmt: skip
    assert [row["cost"]["training_minutes"] for row in found["rows"]] == [0, 0, 2, 2]
    assert [row["cost"]["seconds_per_search"] is None for row in found["rows"]] == [True, False, True, False]
    assert all(row["n"]["pass@1"] == len(pairs) and row["n"]["pass@3"] == 2 for row in found["rows"])
    assert all(row["cost"]["memory_gib"] > 0 and row["cost"]["seconds_per_answer"] > 0 for row in found["rows"])
    without, with_code, *_ = asked
    assert without == [pair["instruction"] for pair in pairs] != with_code
    read = read_json(out / "arms" / "tuned" / "words" / "answers.json")["read"]
    assert read.keys() == {pair["id"] for pair in pairs} and any(read.values())
    assert found["rows"][0]["metrics"]["perplexity"] != found["rows"][2]["metrics"]["perplexity"]
    text = (out / "what_pays.md").read_text()
    assert found["advice"] in text and text in capsys.readouterr().out
    assert (out / "what_pays.svg").read_text().startswith("<svg")

    # again: nothing is measured anew, and the same is found; with other settings it is refused
    asked.clear()
    command()
    assert not asked and read_json(out / "what_pays.json") == found
    # an adapter of the same name with other weights is another arm
    weights = adapter_folder / "adapter_model.safetensors"
    given = weights.read_bytes()
    weights.write_bytes(given[:-1] + bytes([given[-1] ^ 1]))
    command()
    assert len(asked) == 2 and read_json(out / "what_pays.json")["rows"][:2] == found["rows"][:2]
    weights.write_bytes(given)
    with pytest.raises(UserError, match="holds arms with other index_tokens"):
        command("--index-tokens", 50)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--adapter", "tuned=a", "tuned=b"], "the name tuned is taken"),
        (["--adapter", "base=a"], "the name base is taken"),
        (["--adapter", "none"], "none/adapter_config.json: no such file"),
        (["--pairs", "nowhere"], "nowhere/test.jsonl"),
    ],
)
def test_bad_input_is_one_line(command, more, said):
    with pytest.raises(UserError, match=said):
        command(*more)


def test_pairs_of_another_split_are_refused(command, corpus, pairs, tmp_path):
    odd = pairs[1] | {"source": pairs[1]["source"] | {"path": corpus.split("train")[0].path}}
    write_jsonl(tmp_path / "odd" / "test.jsonl", [pairs[0], odd])
    with pytest.raises(UserError, match=f"{odd['id']} is from a training file of"):
        command("--pairs", tmp_path / "odd")


def test_names_are_those_of_the_runs():
    given = ["runs/sft/adapter", "runs/embed/model", "all-minilm-l6-v2", "own=x/y", "BAAI/bge-small-en-v1.5"]
    assert what_pays.named(given, "--adapter") == {
        "sft": "runs/sft/adapter", "embed": "runs/embed/model", "all-minilm-l6-v2": "all-minilm-l6-v2", "own": "x/y",
        "bge-small-en-v1.5": "BAAI/bge-small-en-v1.5",
    }  # fmt: skip


LONGER = '''def {name}(one, other):
    """{what}.

    >>> {name}(7, 2)
    {value}
    """
    result = {body}
    if result is None:
        raise ValueError("no result")
    again = result
    return again
'''


def test_a_repository_without_a_corpus_gets_one_and_its_tasks(tmp_path, model_folder, monkeypatch):
    monkeypatch.setattr(test_self_improve, "FUNCTION", LONGER)
    write_package(tmp_path / "code")
    options = what_pays.Options(repo=str(tmp_path / "code"), out=tmp_path / "out", model=str(model_folder), tasks=4)
    corpus = what_pays.open_or_build_corpus(options)
    held_out = {file.path for file in corpus.split("test")}
    assert held_out and what_pays.open_or_build_corpus(options) == corpus
    what_pays.refuse_other_run(options)  # stopped here, it resumes
    with pytest.raises(UserError, match="holds arms with other seed"):
        what_pays.refuse_other_run(replace(options, seed=1))
    tasks = what_pays.executed_tasks(options, corpus)
    assert len(tasks) >= 2 and {pair["source"]["path"] for pair in tasks} <= held_out
    before = (tmp_path / "out" / "pairs" / "test.jsonl").stat().st_mtime_ns
    assert what_pays.executed_tasks(options, corpus) == tasks
    assert (tmp_path / "out" / "pairs" / "test.jsonl").stat().st_mtime_ns == before


def test_the_index_holds_training_files_and_is_made_once(corpus, tmp_path):
    class Counting(WordEncoder):
        encoded = 0

        def encode(self, texts, kind):
            Counting.encoded += len(texts)
            return super().encode(texts, kind)

    index_training_files(corpus, Counting(), tmp_path)
    made = Counting.encoded
    index_training_files(corpus, Counting(), tmp_path)
    assert Counting.encoded == made > 0
    paths = {unit["source"]["path"] for unit in open_index(tmp_path).units}
    assert paths == {file.path for file in corpus.split("train")}
