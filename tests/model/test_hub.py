from __future__ import annotations

import functools
import http.server
import json
import shutil
import threading
from pathlib import Path

import pytest

from tests.commands import Child

ROOT = Path(__file__).resolve().parents[2]


class Hub(http.server.SimpleHTTPRequestHandler):
    """As much of a model hub as huggingface_hub asks for, over one folder."""

    commit = "0123456789abcdef0123456789abcdef01234567"

    def do_GET(self, head=False):
        parts = self.path.partition("?")[0].strip("/").split("/")
        name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        if name in ("org/gated", "org/private"):
            error = {"org/gated": (403, "GatedRepo"), "org/private": (401, "RepoNotFound")}[name]
            return self._refuse(*error)
        files = {
            path.relative_to(self.directory).as_posix(): path
            for path in Path(self.directory).rglob("*")
            if path.is_file()
        }
        if parts[:2] == ["api", "models"] and name == "org/tiny":
            if "tree" in parts:
                body = json.dumps(
                    [{"type": "file", "path": n, "size": p.stat().st_size, "oid": "0"} for n, p in files.items()]
                )
            else:
                body = json.dumps({"id": "org/tiny", "sha": self.commit, "siblings": [{"rfilename": n} for n in files]})
            return self._send(body.encode(), "application/json", head)
        if "resolve" in parts and name == "org/tiny" and "/".join(parts[4:]) in files:
            return self._send(files["/".join(parts[4:])].read_bytes(), "application/octet-stream", head)
        self._refuse(404, "RepoNotFound")

    def _refuse(self, status, code):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

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


ASK = """
import sys
from common.console import UserError
from model.weights import load_decoder, locate
for name in sys.argv[1:]:
    try:
        folder, size = locate(name), load_decoder(name).config.hidden_size
        print(size, sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")))
    except UserError as error:
        print(error)
"""


def ask_hub(endpoint: str, cache: Path, *names: str, offline: bool = False) -> list[str]:
    """What a process that has not imported huggingface_hub yet says of each name, a line each."""
    (cache / "ask.py").write_text(ASK)
    environment = {"HF_ENDPOINT": endpoint, "HF_HOME": cache, "HF_HUB_DISABLE_XET": 1, "HF_HUB_OFFLINE": int(offline)}
    child = Child(cache / "ask.py", *names, **environment)
    out, err = child.communicate()
    assert child.returncode == 0, err
    lines = out.splitlines()
    assert len(lines) == len(names), out
    return lines


NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def hub(tiny_folder, tmp_path_factory):
    """(the address of a hub with one model that also holds what must not be fetched, a cache to fill)."""
    folder = Path(shutil.copytree(tiny_folder, tmp_path_factory.mktemp("hub") / "tiny"))
    unwanted = (
        "pytorch_model.bin",
        "consolidated.safetensors",
        "original/model.safetensors",
        "onnx/config.json",
        "x.py",
    )
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    for name in unwanted:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"never fetched")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Hub, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", tmp_path_factory.mktemp("cache")
    server.shutdown()
    server.server_close()


def test_a_hub_id_is_fetched_once_and_a_failure_gives_its_reason(hub):
    endpoint, cache = hub
    tiny, other, gated, private = ask_hub(endpoint, cache, "org/tiny", "org/other", "org/gated", "org/private")
    files = ["README.md", "config.json", "generation_config.json", "model.safetensors"]
    files += ["tokenizer.json", "tokenizer_config.json"]
    assert tiny == f"48 {files}"
    for name, said in (("other", other), ("private", private)):
        assert said.startswith(
            f"org/{name}: could not be fetched from the hub (there is no such model; for a private one"
        )
    assert gated.startswith("org/gated: could not be fetched from the hub (it is gated: request access")
    assert "hf auth login" in gated and "hf auth login" in private and "smollm2-135m" in other
    for offline in (True, False):  # told to stay offline, and finding nobody
        tiny, other = ask_hub(NOWHERE, cache, "org/tiny", "org/other", offline=offline)
        assert tiny == f"48 {files}", "not out of the cache"
        assert other.startswith("org/other: could not be fetched from the hub (LocalEntryNotFoundError")
