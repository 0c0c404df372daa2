"""Where a data set comes from: files, folders whose names say the splits, and the hub's own protocol."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

from common.console import UserError
from data.importing.places import open_place

ROOT = Path(__file__).resolve().parents[3]
ROW = {"instruction": "Write a function that adds.", "input": "", "output": "def add(a, b):\n    return a + b"}


def folder(path, *names):
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("{}")
    return path


def splits(place):
    return {split: [path.name for path in paths] for split, paths in place.files.items()}


@pytest.mark.parametrize(
    ("names", "expected", "ignored"),
    [
        (("TREC.train.all", "TREC.test.all"), {"train": ["TREC.train.all"], "test": ["TREC.test.all"]}, []),
        (("train_5500.label", "TREC_10.label"), {"train": ["train_5500.label"], "test": ["TREC_10.label"]}, []),
        (("train-v1.1.json", "dev-v1.1.json"), {"train": ["train-v1.1.json"], "validation": ["dev-v1.1.json"]}, []),
        (
            ("train.csv", "test.csv", "classes.txt", "README"),
            {"train": ["train.csv"], "test": ["test.csv"]},
            ["classes.txt"],
        ),
        (("ori_pqal.json", "test_ground_truth.json", "LICENSE"), {None: ["ori_pqal.json"]}, []),
        (
            (
                "README.md",
                "dataset_infos.json",
                "data/train-00000-of-00002.parquet",
                "data/train-00001-of-00002.parquet",
            ),
            {"train": ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]},
            ["dataset_infos.json"],
        ),
        (
            ("train.tsv", "dev.tsv", "original/train.tsv", ".cache/test.tsv"),
            {"train": ["train.tsv"], "validation": ["dev.tsv"]},
            ["original/train.tsv"],
        ),
        (("val.jsonl.gz", "training.jsonl.gz"), {"train": ["training.jsonl.gz"], "validation": ["val.jsonl.gz"]}, []),
    ],
)
def test_names_in_a_folder_say_the_splits(tmp_path, names, expected, ignored):
    place = open_place(str(folder(tmp_path / "set", *names)))
    assert (splits(place), place.ignored, place.name) == (expected, ignored, "set")


def test_a_file_is_a_whole_set_whatever_its_name(tmp_path):
    place = open_place(str(folder(tmp_path, "rows.train.jsonl.gz") / "rows.train.jsonl.gz"))
    assert (splits(place), place.name) == ({None: ["rows.train.jsonl.gz"]}, "rows.train")


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ((), "no data file in it"),
        (("notes.md", "pictures.png"), "no data file in it"),
        (("a.jsonl", "b.jsonl"), "no name says train or test; give one of its files: a.jsonl, b.jsonl"),
        (("sst2/train.tsv", "cola/train.tsv"), "several sets in it; give one of its folders: cola, sst2"),
    ],
)
def test_a_folder_that_is_not_one_set_is_refused(tmp_path, names, says):
    (tmp_path / "set").mkdir()
    with pytest.raises(UserError, match=says):
        open_place(str(folder(tmp_path / "set", *names)))
    with pytest.raises(UserError, match="none: no such file or folder"):
        open_place(str(tmp_path / "none"))


def test_instruction_rows_come_from_one_file(tmp_path):
    with pytest.raises(UserError, match=r"2 files of instruction rows; give one: train\.jsonl, test\.jsonl"):
        open_place(str(folder(tmp_path, "train.jsonl", "test.jsonl"))).only_file()


@contextmanager
def hub(files):
    """The hub's protocol, as far as one data set needs it: org/rows has the files, org/gated is not given out."""
    commit, asked = "1f" * 20, []

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self):
            path = unquote(self.path).split("?")[0].strip("/").removeprefix("api/").removeprefix("datasets/")
            asked.append(path)
            name, kind, *rest = (*path.split("/"), "", "", "")[1:]
            if not path.startswith("org/rows"):
                status, code = (403, "GatedRepo") if name == "gated" else (404, "RepoNotFound")
                return self.answer(b"", status, X_Error_Code=code)
            if kind == "revision":
                listed = [{"rfilename": name} for name in files]
                return self.answer(json.dumps({"id": "org/rows", "sha": commit, "siblings": listed}).encode())
            if kind == "tree":
                listed = [{"type": "file", "path": n, "size": len(b), "oid": "0"} for n, b in files.items()]
                return self.answer(json.dumps(listed).encode())
            self.answer(files["/".join(rest[1:]).strip("/")], ETag=f'"{len(path)}"', X_Repo_Commit=commit)

        do_HEAD = do_GET

        def answer(self, body, status=200, **headers):
            self.send_response(status)
            for name, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
                **headers,
            }.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.server_port}", commit, asked
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()


ASK = """
import json, sys
from data.importing.places import open_place
from data.importing.records import read_records
from common.console import UserError
for name in sys.argv[1:]:
    try:
        place = open_place(name)
        rows = {str(split): [read_records(path)[0] for path in paths] for split, paths in place.files.items()}
        print(json.dumps([rows, place.name, place.commit]))
    except UserError as error:
        print(error)
"""


def read_in_a_new_process(endpoint, home, *places):
    """What is found at each place, a line each; huggingface_hub reads its settings only when it is imported."""
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-c", ASK, *places]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_file_of_a_data_set_on_the_hub_is_fetched_once_and_what_cannot_be_had_says_why(tmp_path):
    files = {"data/rows.json": json.dumps([ROW]).encode(), "x[1].jsonl": b"{}", "weights.bin": b"never fetched"}
    names = ["rows/data/rows.json", "rows/x[1].jsonl", "rows/none.json", "gated/x.json", "other/x.json"]
    places = [f"hub:org/{name}" for name in names]
    with hub(files) as (endpoint, commit, asked):
        found, second, *refused = read_in_a_new_process(endpoint, tmp_path, *places)
    assert json.loads(found) == [{"None": [[ROW]]}, "rows", commit]
    assert json.loads(second) == [{"None": [[{}]]}, "x[1]", commit]
    assert any("rows.json" in path for path in asked) and not any("weights" in path for path in asked)
    for place, said, why in zip(
        places[2:], refused, ("no such file", "request access", "no such data set"), strict=True
    ):
        name = place.removeprefix("hub:").rsplit("/", 1)[0]
        assert said.startswith(f"{name}: could not be fetched from the hub (") and why in said
    again, other = read_in_a_new_process("http://127.0.0.1:9", tmp_path, places[0], places[-1])
    assert again == found, "not out of the cache"
    assert other.startswith("org/other: could not be fetched from the hub (LocalEntryNotFoundError")


def test_a_whole_data_set_on_the_hub_is_read_by_its_splits(tmp_path):
    line = b'{"text": "x", "label": "y"}\n'
    files = {"a/train.jsonl": line, "a/test.jsonl": 2 * line, "b/train.jsonl": line, "weights.bin": b"never fetched"}
    with hub(files) as (endpoint, commit, asked):
        found, both = read_in_a_new_process(endpoint, tmp_path, "hub:org/rows/a", "hub:org/rows")
    row = {"text": "x", "label": "y"}
    assert json.loads(found) == [{"train": [[row]], "test": [[row, row]]}, "a", commit]
    assert both == "hub:org/rows: several sets in it; give one of its folders: a, b"
    assert not any("weights" in path for path in asked)


@pytest.mark.parametrize("place", ["hub:rows.json", "hub:", "hub:org/"])
def test_a_place_on_the_hub_has_an_owner_and_a_name(place):
    with pytest.raises(UserError, match="give hub:OWNER/NAME"):
        open_place(place)
