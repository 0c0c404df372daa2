"""The command that runs JavaScript and TypeScript in the sandbox: node, with the program's end of the protocol."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
from pathlib import Path

from common.console import UserError

NAMES = {"js": "JavaScript", "ts": "TypeScript"}
HEAP_MEGABYTES = 512  # of V8's heap; the limit on the address space bounds the process as a whole
_HAS_TYPES = """
let path = "";
try { if (require("typescript").transpileModule) path = require.resolve("typescript"); } catch {}
console.log(JSON.stringify([Boolean(require("node:module").stripTypeScriptTypes), path]));
"""


@functools.lru_cache
def node_command(language: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The command that runs an answer (Job.command), and folders besides the system's that it reads (Job.readable).

    Raises UserError if there is no node, or nothing to strip the types from TypeScript.
    """
    found = shutil.which("node")
    if found is None:
        raise UserError(f"{NAMES[language]} tasks need node (18 or newer) on the PATH")
    node, typescript, flags = Path(found).resolve(), "", [f"--max-old-space-size={HEAP_MEGABYTES}"]
    readable = [] if str(node).startswith("/usr/") else [str(node.parent)]
    if language == "ts":
        reply = subprocess.run([node, "-e", _HAS_TYPES], capture_output=True, text=True, check=True).stdout
        strips, typescript = json.loads(reply)
        if not strips and not typescript:
            # from 7 on the compiler is a program of its own, which an answer's process may not start
            raise UserError("TypeScript tasks need node 22.13 or newer, or `npm install typescript@5` in this folder")
        readable += [str(Path(typescript).parents[1])] if typescript else []
        flags += ["--disable-wasm-trap-handler"] if strips else []  # that handler reserves gigabytes of address space
    script = Path(__file__).with_name("peer.js").read_text(encoding="utf-8")
    # OpenSSL's configuration is in a folder that an answer cannot read, and without this node would not start.
    command = ("/usr/bin/env", "OPENSSL_CONF=/dev/null", str(node), *flags)
    return (*command, "-e", script, language, typescript), tuple(readable)
