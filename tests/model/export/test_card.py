from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import yaml

from model.export.convert import export


def front_matter(folder: Path) -> dict:
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", (folder / "README.md").read_text(), re.DOTALL)[1])


def test_the_card_states_what_is_known_and_no_more(tiny_folder, tmp_path):
    source = Path(shutil.copytree(tiny_folder, tmp_path / "source"))
    export(str(source), "hf", tmp_path / "plain")
    assert front_matter(tmp_path / "plain") == {
        "library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["tritune"],
    }  # fmt: skip
    plain = (tmp_path / "plain" / "README.md").read_text()
    assert "## Metrics" not in plain and "## Data" not in plain and str(source) in plain

    change = {"perplexity": {"value": -1.5, "interval": [-1.75, -1.25], "n": 37}}
    metrics = {"before": {"perplexity": 6.5}, "after": {"perplexity": 5.0}, "change": change}
    provenance = {"schema": 1, "base": "Qwen/Qwen2.5-Coder-0.5B", "track": "cpt", "settings": {"learning_rate": 1e-3}}
    provenance |= {"metrics": metrics, "data": {"path": "corpus", "sha256": "ab", "rows": 288, "unit": "files"}}
    (source / "tritune.json").write_text(json.dumps(provenance))
    (source / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    export(str(source), "gguf", tmp_path / "gguf" / "x-f16.gguf", type="f16")
    assert front_matter(tmp_path / "gguf") == {
        "base_model": "Qwen/Qwen2.5-Coder-0.5B", "base_model_relation": "finetune", "library_name": "gguf",
        "license": "apache-2.0", "pipeline_tag": "text-generation", "tags": ["tritune", "code", "gguf"],
    }  # fmt: skip
    card = (tmp_path / "gguf" / "README.md").read_text()
    assert "| perplexity | 6.5 | 5 | -1.5 [-1.75, -1.25] | 37 |" in card
    assert "llama-cli -m x-f16.gguf -cnv --jinja" in card and "| rows | 288 |" in card
