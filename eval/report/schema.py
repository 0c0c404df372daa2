"""Validates a metrics.json against eval/report/metrics.schema.json, a JSON Schema that is also its documentation.

    python -m eval.report.schema runs/quickstart/metrics.json

Every report validates its metrics, so this must work without a further package. It implements only the keywords in that
schema, and the tests hold it to the `jsonschema` package; it adds two rules that JSON Schema cannot express.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.console import UserError, run_command
from common.files import read_json
from common.options import option, parse

SCHEMA = json.loads(Path(__file__).with_name("metrics.schema.json").read_text(encoding="utf-8"))
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float)}


def read_metrics(path: Path | str) -> dict:
    """Read and validate a metrics.json. UserError names the first place that does not match the schema."""
    metrics = read_json(path)
    for problem in problems(metrics):
        raise UserError(f"{path}: {problem} (see eval/report/metrics.schema.json)")
    return metrics


def problems(metrics: dict) -> Iterator[str]:
    """Every place that does not match, such as "tracks.cpt.before: 'perplexity' is missing"."""
    found = list(_broken(metrics, SCHEMA, "the file"))
    yield from found or _inconsistent(metrics)


def _broken(value: object, schema: dict, at: str) -> Iterator[str]:
    """The places where `value` does not match the schema."""
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]] | schema
    if "const" in schema and value != schema["const"]:
        yield f"{at} is {json.dumps(value)}, not {schema['const']}"
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_is(value, kind) for kind in kinds):
        yield f"{at} is {json.dumps(value)[:60]}, not {' or '.join(kinds)}"
    elif isinstance(value, dict):
        yield from _broken_object(value, schema, at)
    elif isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            yield f"{at} has {len(value)} items"
        for number, item in enumerate(value):
            yield from _broken(item, schema.get("items", {}), f"{at}[{number}]")
    elif isinstance(value, (int, float)) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        yield f"{at} is {value}, out of its range"


def _broken_object(value: dict, schema: dict, at: str) -> Iterator[str]:
    needed = schema.get("required", [])
    needed = [
        *needed,
        *(key for has, keys in schema.get("dependentRequired", {}).items() if has in value for key in keys),
    ]
    for key in dict.fromkeys(needed):
        if key not in value:
            yield f"{at}: {key!r} is missing"
    for key, item in value.items():
        inner = schema.get("properties", {}).get(key, schema.get("additionalProperties", {}))
        if inner is False:
            yield f"{at}: {key!r} is not known"
        else:
            yield from _broken(item, inner, key if at == "the file" else f"{at}.{key}")


def _is(value: object, kind: str) -> bool:
    if kind == "null" or value is None:
        return kind == "null" and value is None
    return isinstance(value, TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _inconsistent(metrics: dict) -> Iterator[str]:
    """Rules beyond JSON Schema: intervals are [low, high], and what has changed was measured on both sides."""
    for name, track in metrics["tracks"].items():
        for at, part in ((name, track), (f"{name}.probe", track.get("probe", {}))):
            for metric, change in part.get("change", {}).items():
                low, high = change["interval"]
                if low > high:
                    yield f"tracks.{at}.change.{metric}.interval goes from {low} down to {high}"
                for side in ("before", "after"):
                    if metric not in part[side]:
                        yield f"tracks.{at}.{side}: {metric!r} is missing, although its change is given"


@dataclass(frozen=True)
class Options:
    """Options of this command."""

    file: Path = option(help="metrics.json of a run or of quickstart", positional=True)


def main() -> None:
    """Check a metrics.json against its schema, and list what is wrong."""
    options = parse(Options, description=main.__doc__)
    found = list(problems(read_json(options.file)))
    if found:
        raise UserError(f"{options.file}: " + "; ".join(found))
    print(f"{options.file} keeps to eval/report/metrics.schema.json")


if __name__ == "__main__":
    sys.exit(run_command(main))
