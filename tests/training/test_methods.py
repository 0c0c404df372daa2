"""--method: its learning rate, the options that go with it, and what earlier versions called it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import train_cpt
import train_embed
import train_sft
from common.console import UserError
from common.options import parse_with_recipe
from training.methods import LEARNING_RATES, OF_TRACK, ONLY_WITH, default_learning_rate, with_method
from training.resume import refuse_other_options

REQUIRED = {
    train_cpt: ["--model", "m", "--out", "o", "--corpus", "c"],
    train_sft: ["--model", "m", "--out", "o", "--data", "d"],
    train_embed: ["--model", "m", "--out", "o", "--data", "d"],
}


def resolved(*arguments: str, script=train_sft, track: str = "sft"):
    return with_method(parse_with_recipe(script.Options, [*REQUIRED[script], *arguments]), track)


@pytest.mark.parametrize("method", LEARNING_RATES)
def test_a_method_brings_its_learning_rate_unless_one_is_given(method):
    found = resolved("--method", method)
    assert found.values.lr == LEARNING_RATES[method] and found.sources["lr"] == f"--method {method}"
    given = resolved("--method", method, "--lr", "0.5")
    assert given.values.lr == 0.5 and given.sources["lr"] == "command line"


def test_a_track_may_have_a_rate_of_its_own():
    assert resolved(script=train_cpt, track="cpt").values.lr == default_learning_rate("lora", "cpt") == 4e-4
    assert resolved("--method", "full", script=train_cpt, track="cpt").values.lr == LEARNING_RATES["full"]
    assert resolved(script=train_embed, track="embed").values.lr == 1e-4


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--method", "ia3", "--r", "16"], "--r does not go with --method ia3, but with lora"),
        (["--method", "bitfit", "--dora"], "--dora does not go with --method bitfit, but with lora"),
        (["--method", "full", "--quantize", "nf4"], "--quantize does not go with --method full, but with lora or"),
        (["--lora-plus-ratio", "8", "--method", "bottleneck"], "--lora-plus-ratio does not go with --method bottlen"),
        (["--reduction-factor", "4"], "--reduction-factor does not go with --method lora, but with bottleneck"),
        (["--method", "rabbit"], "--method rabbit: must be one of lora, "),
    ],
)
def test_an_option_that_does_not_go_with_the_method_is_one_line(given, said):
    with pytest.raises(UserError, match=said) as refusal:
        resolved(*given)
    assert "\n" not in str(refusal.value)


def test_a_recipe_with_such_an_option_is_named(tmp_path):
    recipe = tmp_path / "r.toml"
    recipe.write_text('method = "ia3"\nr = 8\n')
    with pytest.raises(UserError, match=r"r\.toml: --r does not go with --method ia3"):
        resolved("--config", str(recipe))


def test_what_switches_an_option_off_goes_with_every_method():
    assert resolved("--method", "full", "--quantize", "none").values.quantize == "none"
    with_off = parse_with_recipe(train_sft.Options, [*REQUIRED[train_sft], "--no-dora", "--method", "ia3"])
    assert with_method(with_off, "sft").values.dora is False


def test_the_rates_are_those_of_the_documentation():
    page = (Path(__file__).resolve().parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([\de-]+) \| (.*) \|$", page.partition("## 7.")[2], re.MULTILINE)
    assert {method: float(rate) for method, rate, _ in rows} == LEARNING_RATES
    of_track = {"cpt": "track A", "embed": "track C"}
    written = {
        track: {method: float(found[1]) for method, _, text in rows if (found := re.search(rf"{name} ([\de-]+)", text))}
        for track, name in of_track.items()
    }
    assert written == OF_TRACK


def test_every_option_of_the_table_exists():
    known = {name for script in REQUIRED for name in script.Options.__dataclass_fields__}
    assert known >= ONLY_WITH.keys()
    assert set(LEARNING_RATES) >= {method for methods in ONLY_WITH.values() for method in methods}


@pytest.mark.parametrize(
    ("script", "switch", "on", "off"), [(train_sft, "full", "full", "lora"), (train_embed, "lora", "lora", "full")]
)
def test_a_run_of_an_earlier_version_is_resumed_with_the_method_that_it_had(script, switch, on, off):
    """Its config.json has --full, or --lora of train_embed.py, instead of --method."""
    track = "sft" if script is train_sft else "embed"
    for value, method, other in ((True, on, off), (False, off, on)):
        now = resolved("--method", method, script=script, track=track)
        saved = {name: entry for name, entry in now.as_dict().items() if name != "method"}
        saved[switch] = {"value": value, "from": "command line" if value else "default"}
        refuse_other_options(Path("run"), now, saved)
        with pytest.raises(UserError, match=f"cannot resume with --method {other}; .* was started with {method}"):
            refuse_other_options(
                Path("run"), resolved("--method", other, "--lr", "1e-4", script=script, track=track), saved
            )
