import hashlib
import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from common.console import UserError, run_command
from common.files import write_json, write_jsonl
from data.card import write_data_card
from data.card.__main__ import main
from data.card.build import write_card_files
from data.card.material import read_material
from data.card.metadata import croissant, front_matter
from data.corpus import save_corpus
from data.pairs import build_text_code_pairs
from data.pairs.build import save_text_code_pairs


def test_the_card_counts_what_is_there_and_changes_with_it(small_corpus, small_pairs, tmp_path):
    pairs = build_text_code_pairs(small_corpus)
    text = write_data_card(tmp_path, corpus=small_corpus, instruct=small_pairs, pairs=pairs)
    assert (tmp_path / "data_card.md").read_text() == text
    assert "Kept 8 Python files, rejected 9" in text
    assert "| test file | 8 |" in text and "| too short | 1 |" in text
    assert "| bugfix | 3 | 0 | 1 |" in text
    assert f"| candidates | {16} | {8} |" in text
    assert text.count("\n### ") == 10
    assert small_pairs.train[0]["instruction"] in text
    again = write_data_card(tmp_path, corpus=small_corpus, instruct=small_pairs, pairs=pairs)
    assert again == text
    small_pairs.test[0]["output"] += " "
    try:
        changed = write_data_card(tmp_path, corpus=small_corpus, instruct=small_pairs, pairs=pairs)
    finally:
        small_pairs.test[0]["output"] = small_pairs.test[0]["output"][:-1]
    hashes = [{line for line in one.split("\n") if line.startswith("| instruction pairs, ")} for one in (text, changed)]
    assert [line.split(" |")[0] for line in hashes[1] - hashes[0]] == ["| instruction pairs, test"]


def test_what_a_teacher_was_asked_is_told_by_category(small_corpus, small_pairs, tmp_path):
    bug = next(pair for pair in small_pairs.train if pair["category"] == "bugfix")
    told = {"model": "m", "candidates": 4, "held": 3, "alike": 2}
    train = [{**pair, "teacher": told} if pair is bug else pair for pair in small_pairs.train]
    why = {"path": "p", "qualname": "q", "category": "bugfix", "split": "train"}
    rejects = [{**why, "reason": f"teacher: {reason}"} for reason in ("wrong: f() gave 1", "wrong", "ruff: F401")]
    taught = replace(small_pairs, train=train, rejects=[*small_pairs.rejects, *rejects])
    text = write_data_card(tmp_path, corpus=small_corpus, instruct=taught)
    assert "| bugfix | 6 | 3 | 3 | 1 | wrong 2, ruff 1 |" in text
    assert "teacher's answers" not in write_data_card(tmp_path, corpus=small_corpus, instruct=small_pairs)


def test_a_card_of_a_corpus_alone_speaks_of_no_pairs(small_corpus, tmp_path):
    text = write_data_card(tmp_path, corpus=small_corpus)
    assert "Instruction pairs" not in text and "Text–code" not in text and "## Hashes" in text
    assert "configs:" not in text


@pytest.fixture(scope="module")
def folder(small_corpus, small_pairs, tmp_path_factory):
    """A folder with a corpus and both kinds of pairs, as the commands write them."""
    place = tmp_path_factory.mktemp("data")
    save_corpus(small_corpus, place / "corpus")
    for split in ("train", "validation", "test"):
        write_jsonl(place / "pairs" / f"{split}.jsonl", small_pairs.split(split))
    write_jsonl(place / "pairs" / "rejects.jsonl", small_pairs.rejects)
    every = ("docstring", "call", "name", "file")
    save_text_code_pairs(
        build_text_code_pairs(small_corpus, rename=True, negatives=2, keep_top=2, origins=every), place / "codes"
    )
    write_card_files(read_material(place))
    return place


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_command_writes_a_page_for_readers_and_two_files_for_machines(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["card", str(folder)])
    before = {name: (folder / name).read_bytes() for name in ("data_card.md", "data_card.html", "croissant.json")}
    assert run_command(main) == 0
    said = capsys.readouterr().out
    assert "8 source files" in said and str(folder / "croissant.json") in said
    assert {name: (folder / name).read_bytes() for name in before} == before  # the same data, the same bytes


def test_the_page_holds_what_the_markdown_holds_and_loads_nothing(folder):
    text, html = (folder / "data_card.md").read_text(), (folder / "data_card.html").read_text()
    tags = Tags()
    tags.feed(html)
    assert not tags.open
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert len(headings) == 10 and headings == re.findall(r"<h2 id=\"[^\"]*\">(.*?)</h2>", html)
    assert text.count("█") > 50 and sum(tag == "rect" for tag, _ in tags.seen) > 20
    addresses = [value for _, given in tags.seen for name, value in given.items() if name in ("src", "href")]
    assert addresses and all(address.startswith("#") for address in addresses)


def test_the_card_tells_seeds_templates_filters_negatives_and_contamination(folder):
    text = (folder / "data_card.md").read_text()
    assert "Text–code pairs made with count 300" in text and "seed 0" in text and "keep_top 2" in text
    assert "- docstring: {sentence} / {topic} / how to {base}" in text
    assert "| in a validation file | 3 |" in text
    assert re.search(r"\d+ hard negatives, from training files; none scores above 95%", text)
    assert "Not checked: the corpus was curated without a benchmark's file" in text
    assert "longest line 1000" in text and "With identifiers renamed: " in text


def test_benchmark_tasks_that_were_left_out_are_named(small_corpus, tmp_path):
    reject = {"path": "a.py", "reason": "benchmark task", "detail": "holds 13 words in a row of MBPP/7"}
    options = small_corpus.options | {"decontaminate": ["somewhere/mbpp.jsonl"]}
    corpus = replace(small_corpus, rejects=(*small_corpus.rejects, reject), options=options)
    text = write_data_card(tmp_path, corpus=corpus)
    assert "Compared with the tasks of mbpp.jsonl: 1 files rejected." in text and "of MBPP/7 |" in text


def test_the_front_matter_is_yaml_that_names_every_file(folder):
    yaml = pytest.importorskip("yaml")
    text = (folder / "data_card.md").read_text()
    assert text.startswith("---\n")
    data = yaml.safe_load(text.split("---\n")[1])
    assert data["license"] == ["unknown"] and data["language"] == ["en", "code"]
    assert data["task_categories"] == ["text-generation", "text-retrieval"]
    assert data["size_categories"] == ["n<1K"] and "croissant" in data["tags"]
    paths = {
        (config["config_name"], file["split"]): file["path"]
        for config in data["configs"]
        for file in config["data_files"]
    }
    assert paths["instruct", "train"] == "pairs/train.jsonl" and paths["pairs", "test"] == "codes/test.jsonl"
    assert paths["renamed", "train"] == "codes/renamed/train.jsonl"
    assert ("instruct", "validation") not in paths  # an empty file cannot be loaded
    for path in paths.values():
        assert (folder / path).stat().st_size


def test_licences_are_written_as_the_hub_writes_them(small_corpus, tmp_path):
    yaml = pytest.importorskip("yaml")
    declared = ["BSD-3-Clause", "GPL-3.0-or-later", "Our own: ask", None]
    files = [replace(file, license=declared[i % 4]) for i, file in enumerate(small_corpus.files)]
    text = write_data_card(tmp_path, corpus=replace(small_corpus, name="a: #b", files=tuple(files)))
    data = yaml.safe_load(text.split("---\n")[1])
    assert data["license"] == ["bsd-3-clause", "gpl-3.0", "other"] and data["pretty_name"] == "a: #b"


def test_the_croissant_describes_every_file_and_every_column(folder):
    data = json.loads((folder / "croissant.json").read_text())
    required = {"@context", "@type", "conformsTo", "description", "license", "name", "url", "creator", "datePublished"}
    assert required <= data.keys() and data["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", data["datePublished"])
    objects = {one["@id"]: one for one in data["distribution"] if one["@type"] == "cr:FileObject"}
    for name, one in objects.items():
        content = (folder / name).read_bytes()
        assert one["sha256"] == hashlib.sha256(content).hexdigest() and one["contentSize"] == f"{len(content)} B"
    (files,) = (one for one in data["distribution"] if one["@type"] == "cr:FileSet")
    assert files["containedIn"]["@id"] in objects and files["includes"] == "corpus/files/**"
    ids = [part["@id"] for one in data["recordSet"] for part in (one, *one["field"])]
    assert len(set(ids)) == len(ids)
    for record_set in data["recordSet"]:
        sources = {one["source"]["fileObject"]["@id"] for one in _leaves(record_set["field"])}
        assert len(sources) == 1 and sources <= objects.keys()
        rows = [json.loads(line) for line in (folder / sources.pop()).read_text().splitlines()]
        columns = {one["source"]["extract"]["column"] for one in _leaves(record_set["field"])}
        assert columns == {key for row in rows for key in row}
    (pairs,) = (one for one in data["recordSet"] if one["@id"] == "pairs-train")
    kinds = {one["name"]: (one.get("dataType"), one.get("repeated", False)) for one in pairs["field"]}
    assert kinds["query"] == ("sc:Text", False) and kinds["negatives"] == ("sc:Text", True)
    source = next(one for one in pairs["field"] if one["name"] == "source")
    lines = next(one for one in source["subField"] if one["name"] == "lines")
    assert (
        lines["dataType"] == "sc:Integer"
        and lines["repeated"]
        and lines["source"]["transform"] == {"jsonPath": "lines"}
    )
    assert pairs["key"] == {"@id": "pairs-train/id"}


@pytest.mark.parametrize(
    ("source", "commit", "address"),
    [
        ("package:a", "a==1.2", "pkg:pypi/a@1.2"),
        ("npm:@b/a@1.2", "@b/a@1.2", "pkg:npm/%40b/a@1.2"),
        ("https://example.org/a.git", "0a1b", "https://example.org/a.git"),
        ("somewhere/here", None, "file:."),
    ],
)
def test_the_address_is_that_of_the_revision(small_corpus, tmp_path, source, commit, address):
    files = tuple(replace(file, commit=commit) for file in small_corpus.files)
    save_corpus(replace(small_corpus, source=source, files=files), tmp_path / "corpus")
    assert croissant(read_material(tmp_path), "what it is")["url"] == address


def _leaves(fields):
    return [leaf for field in fields for leaf in (_leaves(field["subField"]) if "subField" in field else [field])]


def test_a_card_of_pairs_alone_knows_where_they_are_from(folder, small_corpus):
    material = read_material(folder / "codes")
    assert material.corpus is None and material.name == small_corpus.name
    (path, *_) = write_card_files(material)
    text = path.read_text()
    assert f"`{small_corpus.source}`" in text and "## Filters" not in text and "## Text–code pairs" in text
    assert "path: train.jsonl" in front_matter(material)


def test_a_folder_without_data_or_with_two_sets_of_a_kind_is_refused(folder, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        read_material(tmp_path / "none")
    with pytest.raises(UserError, match="no corpus and no pairs here"):
        read_material(tmp_path)
    for name in ("a", "b"):
        write_jsonl(tmp_path / name / "train.jsonl", [{"id": 1, "instruction": "x", "output": "y"}])
    with pytest.raises(UserError, match="two sets of instruction pairs"):
        read_material(tmp_path)


def test_pairs_that_were_imported_make_a_card_too(tmp_path):
    rows = [{"id": f"a{n}", "instruction": "Say.", "input": "", "output": "it " * n} for n in range(1, 3)]
    rows[0]["category"] = "say"
    rows.append({"prompt": "Tell.", "completion": "told"})
    write_jsonl(tmp_path / "train.jsonl", rows)
    templates = {"say": ["Say."], "shout": ["Say!"]}
    write_json(tmp_path / "about.json", {"templates": templates, "teacher": {"model": "big"}, "options": {"seed": 5}})
    text = write_card_files(read_material(tmp_path))[0].read_text()
    assert "| none | 2 | 0 | 0 |" in text and "- say: Say." in text and "shout" not in text and "seed 5" in text
    assert "A teacher took part: big. 0 of 3 answers are its own" in text and "3 pairs have no input" in text
    assert "0 of 3 pairs have a check that runs code, 0 one of their structure alone, 3 none." in text
    assert "The rows do not say where they are from." in text and "### train/3\n\n```\nTell." in text
    write_jsonl(tmp_path / "train.jsonl", [*rows, {"prompt": "x"}])
    with pytest.raises(UserError, match=r'train.jsonl:4: "completion" is missing'):
        read_material(tmp_path)
    write_jsonl(tmp_path / "train.jsonl", [])
    with pytest.raises(UserError, match="no pair in it"):
        read_material(tmp_path)


def test_the_card_says_who_wrote_the_answers_and_the_queries(small_corpus, small_pairs, folder, tmp_path):
    text = (folder / "data_card.md").read_text()
    assert "No language model took part" in text and "written by the authors of the code" in text
    assert "teacher" not in text
    taught = [{**pair, "teacher": {"model": "big"}} for pair in small_pairs.train[:2]]
    instruct = replace(small_pairs, train=[*taught, *small_pairs.train[2:]])
    pairs = build_text_code_pairs(small_corpus)
    pairs.train[0]["origin"] = "teacher"
    told = {"model": "small", "candidates": 4, "system": "", "asked": "Which query?\n{code}"}
    pairs = replace(pairs, about=pairs.about | {"teacher": told})
    text = write_data_card(tmp_path, corpus=small_corpus, instruct=instruct, pairs=pairs)
    assert "No language model took part" not in text and "A teacher took part: big. 2 of " in text
    assert f"small wrote 1 of the {len(pairs.train)} training queries" in text and "“Which query?”" in text
    assert "written by a teacher and the authors of the code" in text


def test_of_imported_rows_the_card_claims_no_author(tmp_path):
    write_jsonl(
        tmp_path / "train.jsonl",
        [{"category": "docstring", "instruction": "Say.", "output": "it", "teacher": "Ms Lee"}],
    )
    settings = {"limit": None, "share": {}, "seed": 5}
    lost = {"test failed": 2}
    write_json(tmp_path / "about.json", {"kind": "imported instruction rows", "options": settings, "lost": lost})
    text = write_card_files(read_material(tmp_path))[0].read_text()
    assert "their source says who wrote the code" in text and "No language model" not in text
    assert "made with seed 5." in text and "Phrasings" not in text and "Injected bugs" not in text
    assert "cannot serve as checks: test failed 2." in text
    rows = [{"instruction": "Say.", "output": f"it {n}", "explained_by": "big"} for n in range(2)]
    write_jsonl(tmp_path / "train.jsonl", [*rows, {"instruction": "Say.", "output": "it"}])
    text = write_card_files(read_material(tmp_path))[0].read_text()
    assert "A model, big, wrote the explanation in 2 of 3 answers" in text


def test_a_path_that_yaml_would_misread_is_quoted(tmp_path):
    yaml = pytest.importorskip("yaml")
    write_jsonl(tmp_path / "my: #1" / "train.jsonl", [{"instruction": "x", "output": "y"}])
    data = yaml.safe_load(front_matter(read_material(tmp_path)).split("---\n")[1])
    assert data["configs"][0]["data_files"] == [{"split": "train", "path": "my: #1/train.jsonl"}]
