"""The model card of an export: README.md as model hubs read it. It states what is known and nothing else.

Front matter: the hub's model card specification (base_model, library_name, license, tags).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from common.markdown import fenced
from model.embedded import EMBEDDED

HUB_IDS = {  # of the embedded defaults, with their license
    "smollm2-135m": ("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0"),
    "all-minilm-l6-v2": ("sentence-transformers/all-MiniLM-L6-v2", "apache-2.0"),
}
TRACKS = {
    "cpt": "continued pre-training on source code",
    "sft": "instruction tuning on tasks made from source code",
    "embed": "tuning of embeddings on text-code pairs",
}
LIBRARIES = {"hf": "transformers", "gguf": "gguf", "sentence-transformers": "sentence-transformers"}


@dataclass(frozen=True)
class Export:
    """What the card describes."""

    source: str  # the MODEL argument
    to: str  # hf, gguf or sentence-transformers
    type: str  # of the weights: fp32, bf16, fp16; of a .gguf file f32, f16, bf16, q8_0
    path: Path  # what is written: a folder or a .gguf file
    report: dict  # export_report.json
    provenance: dict  # tritune.json of the source, or {}
    license: str | None
    has_chat_template: bool = False
    has_ollama_template: bool = False
    prompts: dict[str, str] = field(default_factory=dict)  # an encoder's prefixes


def find_license(source: str, folder: Path) -> str | None:
    """The license named by the source's own card, or the embedded default's."""
    if source in EMBEDDED:
        return HUB_IDS[source][1]
    card = folder / "README.md"
    if not card.is_file():
        return None
    front = re.match(r"---\n(.*?)\n---\n", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    named = re.search(r"^license:\s*([\w.-]+)\s*$", front[1], re.MULTILINE) if front else None
    return named[1] if named else None


def model_card(export: Export) -> str:
    """README.md."""
    name = export.path.stem if export.to == "gguf" else export.path.name
    provenance = export.provenance
    parts = [_front_matter(export), f"# {name}", _origin(export)]
    if data := provenance.get("data"):
        parts.append(_section("Data", {key: data[key] for key in ("path", "rows", "unit", "sha256") if key in data}))
    if settings := provenance.get("settings"):
        parts.append(_section("Settings", settings))
    if changes := (provenance.get("metrics") or {}).get("change"):
        parts.append(_metrics(provenance["metrics"], changes))
    parts += [_check(export), "## How to use it\n\n" + "\n\n".join(_uses(export, name))]
    return "\n\n".join(parts) + "\n"


def _base(export: Export) -> str:
    base = export.provenance.get("base") or export.source
    return HUB_IDS[base][0] if base in HUB_IDS else base


def _front_matter(export: Export) -> str:
    """YAML; JSON values are valid YAML."""
    base, trained = _base(export), export.provenance.get("track")
    entries: dict[str, object] = {}
    if re.fullmatch(r"[\w.-]+/[\w.-]+", base) and not Path(base).exists():  # a hub id, not a local folder
        entries["base_model"] = base
        if trained or export.to == "gguf":
            entries["base_model_relation"] = "finetune" if trained else "quantized"
    entries["library_name"] = LIBRARIES[export.to]
    if export.license is not None:
        entries["license"] = export.license
    if export.to == "sentence-transformers":
        entries["pipeline_tag"] = "sentence-similarity"
    else:
        entries["pipeline_tag"] = "text-generation"
    entries["tags"] = ["tritune", *(["code"] if trained else []), *(["gguf"] if export.to == "gguf" else [])]
    return "---\n" + "".join(f"{key}: {json.dumps(value)}\n" for key, value in entries.items()) + "---"


def _origin(export: Export) -> str:
    track = export.provenance.get("track")
    how = (
        f"made from `{_base(export)}` by {TRACKS.get(track, track)}"
        if track
        else f"`{_base(export)}`, not trained further"
    )
    merged = len(export.provenance.get("merged") or [])
    adapters = f", {merged} adapter{'s' if merged > 1 else ''} merged into the weights" if merged else ""
    license_ = export.license or "not named in the source's files; the base model's license applies"
    return f"This is {how}{adapters}. Weights: {export.type}. License: {license_}."


def _section(title: str, values: dict) -> str:
    rows = "".join(f"| {key} | {_cell(value)} |\n" for key, value in values.items() if value is not None)
    return f"## {title}\n\n| | |\n|---|---|\n{rows}".rstrip()


def _cell(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.replace("|", "\\|").replace("\n", " ")


def _metrics(metrics: dict, changes: dict) -> str:
    rows = []
    for name, change in changes.items():
        low, high = change["interval"]
        before, after = (_number((metrics.get(side) or {}).get(name)) for side in ("before", "after"))
        difference = f"{change['value']:+.4g} [{low:+.4g}, {high:+.4g}]"
        rows.append(f"| {name} | {before} | {after} | {difference} | {change['n']} |")
    table = "\n".join(["| metric | before | after | change [95 % interval] | n |", "|---|---|---|---|---|", *rows])
    return f"## Metrics\n\nOn held-out data, before and after the training.\n\n{table}"


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "-"


def _check(export: Export) -> str:
    """The export's own figures: loaded again and compared with its source."""
    figures = export.report["comparison"]
    lines = [f"- {key.replace('_', ' ')}: {value:.6g}" for key, value in figures.items()]
    lines += [f"- {note}" for note in export.report["notes"]]
    return "\n".join(["## This export against its source\n\nLoaded again after writing, on a fixed text.\n", *lines])


def _uses(export: Export, name: str) -> list[str]:
    return {"hf": _uses_hf, "gguf": _uses_gguf, "sentence-transformers": _uses_encoder}[export.to](export, name)


def _uses_hf(export: Export, name: str) -> list[str]:
    dtype = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}[export.type]
    if export.has_chat_template:
        inputs = (
            'messages = [{"role": "user", "content": "What does functools.lru_cache do?"}]\n'
            'options = {"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True}\n'
            "inputs = tokenizer.apply_chat_template(messages, **options)"
        )
    else:
        inputs = 'inputs = tokenizer("def fibonacci(n):", return_tensors="pt")'
    transformers = (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'model = AutoModelForCausalLM.from_pretrained("{name}", dtype="{dtype}")\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{name}")\n{inputs}\n'
        "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=100)[0]))"
    )
    return [
        "transformers:",
        fenced(transformers, "python"),
        "vLLM:",
        fenced(f"vllm serve ./{name} --dtype {dtype}", "sh"),
        "PEFT: these are full weights and need no adapter. To train a new adapter on them, "
        f'`get_peft_model(AutoModelForCausalLM.from_pretrained("{name}"), LoraConfig(...))`.',
        "llama.cpp and Ollama:",
        fenced(f"python -m model.export {name} --to gguf --type q8_0 --out gguf/{name}-q8_0.gguf", "sh"),
    ]


def _uses_gguf(export: Export, name: str) -> list[str]:
    file = export.path.name
    chat = "-cnv --jinja" if export.has_chat_template else '-no-cnv -p "def fibonacci(n):"'
    template = (
        "The Modelfile has the chat template and the stop tokens of training."
        if export.has_ollama_template
        else "The Modelfile has the stop tokens; Ollama takes the template from the .gguf file."
    )
    return [
        "llama.cpp:",
        fenced(f"llama-cli -m {file} {chat}", "sh"),
        "llama-cpp-python:",
        fenced(
            f'from llama_cpp import Llama\n\nmodel = Llama("{file}", n_ctx=0)  # 0: the model\'s own context', "python"
        ),
        "Ollama:",
        fenced(f"ollama create {name.lower()} -f Modelfile && ollama run {name.lower()}", "sh"),
        template,
    ]


def _uses_encoder(export: Export, name: str) -> list[str]:
    arguments = {side: f', prompt_name="{side}"' if export.prompts.get(side) else "" for side in ("query", "document")}
    text = (
        "from sentence_transformers import SentenceTransformer\n\n"
        f'model = SentenceTransformer("{name}")\n'
        f'query = model.encode("read a file line by line"{arguments["query"]})\n'
        f'code = model.encode("def lines(path): ..."{arguments["document"]})\n'
        "print(model.similarity(query, code))"
    )
    return ["sentence-transformers:", fenced(text, "python")]
