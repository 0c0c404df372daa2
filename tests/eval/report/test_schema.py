from __future__ import annotations

import json
import sys

import jsonschema
import pytest

from common.console import UserError
from eval.report.schema import SCHEMA, main, problems, read_metrics
from eval.stats import paired_change

CHANGE = paired_change({"a": 0.0, "b": 0.5, "c": 0.25}, {"a": 0.5, "b": 0.75, "c": 0.25})
TRACK = {"before": {"style": 0.25}, "after": {"style": 0.5}, "change": {"style": CHANGE}}
GOOD = {
    "schema": 1,
    "seconds": {"total": 3.5},
    "tracks": {"cpt": {**TRACK, "probe": TRACK}, "sft": {}, "embed": {**TRACK, "bm25": {"mrr@10": 0.5}}},
    "sizes": {"pairs": 3},
    "settings": {"seed": "0"},
}


def change_of(metrics):
    return metrics["tracks"]["cpt"]["change"]["style"]


def test_what_a_run_writes_matches_the_schema():
    assert list(problems(GOOD)) == [] and set(CHANGE) >= {"p", "n_needed"}
    assert list(problems({**GOOD, "later": 1})) == []  # unknown keys are ignored


BROKEN = [
    (lambda m: m.update(schema=2), "schema is 2, not 1"),
    (lambda m: m.pop("seconds"), "the file: 'seconds' is missing"),
    (lambda m: m["seconds"].update(total="3"), 'seconds.total is "3", not number'),
    (lambda m: m["seconds"].update(total=-1), "seconds.total is -1, out of its range"),
    (lambda m: m["tracks"].update(rlhf={}), "tracks: 'rlhf' is not known"),
    (lambda m: m["tracks"]["cpt"].pop("after"), "tracks.cpt: 'after' is missing"),
    (lambda m: m["tracks"]["cpt"].update(after=None), "tracks.cpt.after is null, not object"),
    (lambda m: m["tracks"]["cpt"]["before"].update(style=True), "tracks.cpt.before.style is true, not number"),
    (lambda m: m["tracks"]["cpt"]["probe"].pop("change"), "tracks.cpt.probe: 'change' is missing"),
    (lambda m: change_of(m).pop("p"), "tracks.cpt.change.style: 'p' is missing"),
    (lambda m: change_of(m).update(p=1.5), "tracks.cpt.change.style.p is 1.5, out of its range"),
    (lambda m: change_of(m).update(n=0), "tracks.cpt.change.style.n is 0, out of its range"),
    (lambda m: change_of(m).update(n=2.5), "tracks.cpt.change.style.n is 2.5, not integer"),
    (lambda m: change_of(m).update(n_needed=0), "tracks.cpt.change.style.n_needed is 0, out of its range"),
    (lambda m: change_of(m).update(interval=[0.5]), "tracks.cpt.change.style.interval has 1 items"),
    (lambda m: change_of(m).update(interval=[0, "1"]), 'tracks.cpt.change.style.interval[1] is "1", not number'),
    (lambda m: change_of(m).update(interval=[1, 0]), "tracks.cpt.change.style.interval goes from 1 down to 0"),
    (
        lambda m: m["tracks"]["embed"]["before"].clear(),
        "tracks.embed.before: 'style' is missing, although its change is given",
    ),
]
BEYOND_SCHEMA = ("goes from 1 down to 0", "although its change is given")  # rules that JSON Schema cannot express


@pytest.mark.parametrize(("broken", "says"), BROKEN)
def test_what_does_not_match_is_named_with_its_place(broken, says):
    metrics = json.loads(json.dumps(GOOD))
    broken(metrics)
    assert list(problems(metrics)) == [says]


@pytest.mark.parametrize(("broken", "says"), [(lambda m: None, ""), *BROKEN])
def test_the_jsonschema_package_agrees(broken, says):
    metrics = json.loads(json.dumps(GOOD))
    broken(metrics)
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    is_valid = jsonschema.Draft202012Validator(SCHEMA).is_valid(metrics)
    assert is_valid == (not says or says.endswith(BEYOND_SCHEMA))


def test_every_keyword_in_the_schema_is_implemented():
    known = {"$ref", "const", "type", "required", "dependentRequired", "properties", "additionalProperties", "items"}
    known |= {"minItems", "maxItems", "minimum", "maximum", "description"}

    def walk(schema):
        assert schema is False or schema.keys() <= known, schema
        inner = schema or {}
        parts = [*inner.get("properties", {}).values(), inner.get("items", {}), inner.get("additionalProperties", {})]
        return 1 + sum(walk(part) for part in parts if part)

    top = {key: value for key, value in SCHEMA.items() if key not in ("$schema", "$defs", "title")}
    assert walk(top) + sum(map(walk, SCHEMA["$defs"].values())) > 20


def test_the_command_names_every_problem_and_reading_the_first(tmp_path, monkeypatch, capsys):
    file = tmp_path / "metrics.json"
    monkeypatch.setattr(sys, "argv", ["schema", str(file)])
    file.write_text(json.dumps(GOOD))
    main()
    assert "keeps to" in capsys.readouterr().out and read_metrics(file) == GOOD
    file.write_text(json.dumps({"schema": 2, "tracks": {}}))
    with pytest.raises(UserError, match=r"metrics\.json: the file: 'seconds' is missing; schema is 2, not 1$"):
        main()
    with pytest.raises(UserError, match=r"'seconds' is missing \(see eval/report/metrics.schema.json\)"):
        read_metrics(file)
