from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.console import UserError
from training.options import option, parse


@dataclass(frozen=True)
class Options:
    model: str = option(text="a name")
    lr: float = option(1e-3, "a rate")
    steps: int = option(10, "a count")
    full: bool = option(False, "a switch")
    test: str | None = option(None, "a file, 100 % of it")


def test_each_value_is_kept_with_where_it_came_from(tmp_path):
    recipe = tmp_path / "x.toml"
    recipe.write_text('model = "tiny"\nlr = 1\nsteps = 3\n')
    resolved = parse(Options, ["--config", str(recipe), "--steps", "7", "--full"])
    assert resolved.values == Options(model="tiny", lr=1.0, steps=7, full=True)
    assert resolved.as_dict() == {
        "model": {"value": "tiny", "from": str(recipe)},
        "lr": {"value": 1.0, "from": str(recipe)},
        "steps": {"value": 7, "from": "command line"},
        "full": {"value": True, "from": "command line"},
        "test": {"value": None, "from": "default"},
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("learning_rate = 1", "unknown option 'learning_rate'"),
        ('steps = "3"', "must be int, not str"),
        ("steps = ", "not readable"),
    ],
)
def test_a_recipe_with_an_error_is_refused(tmp_path, text, reason):
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(UserError, match=reason):
        parse(Options, ["--model", "m", "--config", str(tmp_path / "x.toml")])


RECIPES = Path(__file__).resolve().parents[2] / "recipes"


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_the_recipes_of_the_project_have_options_of_their_script(recipe):
    script = importlib.import_module(f"train_{recipe.name.partition('_')[0]}")
    given = [f"--{name}=x" for name in ("out", "data", "corpus") if name in script.Options.__dataclass_fields__]
    resolved = parse(script.Options, ["--config", str(recipe), *given])
    assert "model" in {name for name, source in resolved.sources.items() if source == str(recipe)}


def test_a_value_that_is_too_small_is_refused(tmp_path):
    @dataclass(frozen=True)
    class Bounded:
        row_tokens: int = option(8, "tokens", least=2)

    assert parse(Bounded, ["--row-tokens", "2"]).values.row_tokens == 2
    (tmp_path / "x.toml").write_text("row-tokens = 1")
    for arguments in (["--row-tokens", "1"], ["--config", str(tmp_path / "x.toml")]):
        with pytest.raises(UserError, match="--row-tokens 1: must be at least 2"):
            parse(Bounded, arguments)


def test_a_missing_required_option_ends_with_status_2(capsys):
    with pytest.raises(SystemExit) as error:
        parse(Options, [])
    assert error.value.code == 2 and "--model must be given" in capsys.readouterr().err


def test_help_gives_every_option_and_default(capsys):
    with pytest.raises(SystemExit):
        parse(Options, ["--help"])
    text = capsys.readouterr().out
    assert "--lr" in text and "(default: 0.001)" in text and "100 % of it" in text and "--no-full" in text


@dataclass(frozen=True, kw_only=True)
class Bounded(Options):
    share: float = option(0.5, "a share", least=0, most=1)
    kind: str = option("a", "a kind", choices=("a", "b"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--share", "1.5"], "--share 1.5: must be at most 1"),
        (["--share", "-0.1"], "--share -0.1: must be at least 0"),
        (["--share", "nan"], "must be a number"),
        (["--kind", "c"], "--kind c: must be one of a, b"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(given, said):
    with pytest.raises(UserError, match=said):
        parse(Bounded, ["--model", "m", *given])


def test_options_of_a_base_class_are_options_too_and_values_can_be_set_later(capsys):
    resolved = parse(Bounded, ["--model", "m", "--kind", "b"]).with_values("--fit", steps=3)
    assert (resolved.values.kind, resolved.values.steps, resolved.sources["steps"]) == ("b", 3, "--fit")
    with pytest.raises(SystemExit):
        parse(Bounded, ["--help"])
    said = capsys.readouterr().out.partition("options:")[2]
    assert said.index("--kind") < said.index("shared by the scripts") < said.index("--steps")
