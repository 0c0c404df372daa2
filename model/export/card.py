"""The model card of an export: README.md as model hubs read it. It states what is known and nothing else.

Its text is card.md.j2. Front matter: the hub's model card specification (base_model, library_name, license, tags).
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

import jinja2

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
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


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
    provenance = export.provenance
    # an embedded default is known to hubs by another name; a folder is not known to them at all
    base = provenance.get("base") or export.source
    base = HUB_IDS[base][0] if base in HUB_IDS else base
    is_hub_id = bool(re.fullmatch(r"[\w.-]+/[\w.-]+", base)) and not Path(base).exists()

    # of the data only what identifies it, and metrics only if there is something to compare
    data, metrics = provenance.get("data") or {}, provenance.get("metrics") or {}
    compared = {side: metrics.get(side) or {} for side in ("before", "after", "change")}
    return _template().render(
        asdict(export),
        name=export.path.stem if export.to == "gguf" else export.path.name,
        base=base,
        is_hub_id=is_hub_id,
        dtype=DTYPES.get(export.type),
        track=provenance.get("track"),
        tracks=TRACKS,
        merged=len(provenance.get("merged") or []),
        data={key: data[key] for key in ("path", "rows", "unit", "sha256") if key in data},
        settings=provenance.get("settings"),
        metrics=compared if compared["change"] else None,
        comparison=export.report["comparison"],
        notes=export.report["notes"],
    )


def _template() -> jinja2.Template:
    # Markdown, not HTML: nothing is escaped
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.filters |= {"json": json.dumps, "cell": _cell, "figure": _figure}
    return environment.from_string(Path(__file__).with_name("card.md.j2").read_text(encoding="utf-8"))


def _cell(value: object) -> str:
    """A value inside a table: nothing in it ends the cell or the row."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.replace("|", "\\|").replace("\n", " ")


def _figure(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "-"
