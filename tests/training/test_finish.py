"""What a run leaves beside its weights."""

from __future__ import annotations

import hashlib
import json

import peft
import pytest
from transformers import AutoModelForCausalLM

import train_sft


@pytest.fixture(scope="module")
def run_folder(tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sft")
    pairs = [{"instruction": f"Add {n}", "output": f"return a + {n}"} for n in range(4)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    options = {"model": tiny_folder, "data": folder / "pairs.jsonl", "out": folder / "run", "max-length": 64}
    train_sft.main([part for name, value in options.items() for part in (f"--{name}", str(value))])
    return folder / "run"


def test_the_saved_adapter_says_where_it_comes_from(run_folder, tiny_folder):
    provenance = json.loads((run_folder / "adapter" / "tritune.json").read_text())
    assert provenance.keys() == {"schema", "base", "track", "settings", "metrics", "data", "versions"}
    assert (provenance["schema"], provenance["track"], provenance["base"]) == (1, "sft", str(tiny_folder))
    assert provenance["settings"]["r"] == 16 and not provenance["settings"].keys() & {"out", "device", "model"}
    data = run_folder.parent / "pairs.jsonl"
    expected = {"path": str(data), "sha256": hashlib.sha256(data.read_bytes()).hexdigest(), "rows": 4, "unit": "pairs"}
    assert provenance["data"] == expected
    assert provenance["versions"].keys() >= {"python", "torch", "source_sha256"}


def test_peft_takes_no_offence_at_the_extra_file(run_folder, tiny_folder, recwarn):
    base = AutoModelForCausalLM.from_pretrained(tiny_folder)
    recwarn.clear()
    peft.PeftModel.from_pretrained(base, run_folder / "adapter")
    assert not [str(warning.message) for warning in recwarn if "tritune" in str(warning.message)]
