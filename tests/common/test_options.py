from __future__ import annotations

import importlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.console import UserError
from common.options import HIDDEN, as_settings, given_in_code, option, parse, parse_subcommand, parse_with_recipe


@dataclass(frozen=True, kw_only=True)
class Options:
    GROUPS = ("the model", "the steps")

    steps: int = option(10, "how many", "the steps", least=1)
    model: str = option(help="a name", group="the model")
    lr: float = option(1e-3, "a rate (0: none)", "the steps", least=0, most=1)
    full: bool = option(False, "train it whole", "the model")
    clip: bool = option(True, "do not clip", "the steps")
    test: Path | None = option(None, "a file, 100 % of it")


@dataclass(frozen=True, kw_only=True)
class Lists:
    sources: tuple[str, ...] = option(help="where from", positional=True)
    k: tuple[int, ...] = option((1, 3), "the ks", least=1)
    prices: tuple[float, float] | None = option(None, "per token", metavar=("IN", "OUT"))
    origins: tuple[str, ...] = option((), "what from", flag="--from", choices=("a", "b"))
    results: tuple[str, ...] = option(("x",), "which", nargs="*")
    adapter: tuple[str, ...] = option((), "one each time", repeated=True)
    open: int | None = option(None, "which to open", nargs="?", const=1)
    child: str = option("", HIDDEN)


def test_values_are_of_their_types():
    given = ["--model", "m", "--steps", "7", "--lr", "1", "--full", "--no-clip", "--test", "x.jsonl"]
    expected = Options(model="m", steps=7, lr=1.0, full=True, clip=False, test=Path("x.jsonl"))
    assert parse(Options, given) == expected and isinstance(parse(Options, given).lr, float)
    assert parse(Options, ["--model", "m"]) == Options(model="m")


def test_lists_are_tuples():
    given = ["s", "t", "--k", "2", "5", "--prices", "1", "0.5", "--from", "b", "--results"]
    options = parse(Lists, [*given, "--adapter", "x", "--adapter", "y", "--open", "--child", "c"])
    assert options == Lists(
        sources=("s", "t"), k=(2, 5), prices=(1.0, 0.5), origins=("b",), results=(), adapter=("x", "y"), open=1,
        child="c",
    )  # fmt: skip
    assert parse(Lists, ["s", "--open", "4"]).open == 4
    assert parse(Lists, ["s"]) == Lists(sources=("s",))


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        (Options, ["--lr", "1.5"], "--lr 1.5: must be at most 1"),
        (Options, ["--lr", "-0.1"], "--lr -0.1: must be at least 0"),
        (Options, ["--lr", "nan"], "--lr nan: must be a number"),
        (Options, ["--steps", "0"], "--steps 0: must be at least 1"),
        (Options, ["--steps", "two"], "--steps: invalid int value: 'two'"),
        (Options, ["--stepz", "2"], "unrecognized arguments: --stepz"),
        (Options, ["--no-full"], "unrecognized arguments: --no-full"),
        (Lists, ["--k", "1", "0"], "--k 0: must be at least 1"),
        (Lists, ["--from", "c"], "--from c: must be one of a, b"),
        (Lists, ["--prices", "1"], "--prices: expected 2 arguments"),
        (Lists, ["--k"], "--k: expected at least one argument"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(kind, given, said):
    with pytest.raises(UserError, match=said):
        parse(kind, [*(["--model", "m"] if kind is Options else ["s"]), *given])


def test_values_given_in_code_are_those_of_the_command_line():
    resolved = given_in_code(Options, model="m", steps=7)
    assert resolved.values == parse(Options, ["--model", "m", "--steps", "7"])
    assert resolved.sources["steps"] == "code" and resolved.sources["lr"] == "default"
    with pytest.raises(UserError, match="--steps 0: must be at least 1"):
        given_in_code(Options, model="m", steps=0)
    with pytest.raises(UserError, match="unknown options stepz"):
        given_in_code(Options, model="m", stepz=2)
    with pytest.raises(UserError, match="--model must be given"):
        given_in_code(Options)


def test_what_is_required_is_named():
    with pytest.raises(UserError, match=r"^--model must be given \(see python.* --help\)$"):
        parse(Options, [])
    with pytest.raises(UserError, match="required: SOURCES"):
        parse(Lists, [])


def test_options_that_exclude_each_other_are_checked_where_they_are_declared():
    @dataclass(frozen=True)
    class Either:
        model: str | None = option(None, "asked")
        answers: str | None = option(None, "given")

        def __post_init__(self):
            if (self.model is None) == (self.answers is None):
                raise UserError("give either --model or --answers")

    with pytest.raises(UserError, match="give either"):
        parse(Either, ["--model", "m", "--answers", "a"])
    assert parse(Either, ["--answers", "a"]).answers == "a"


def shown(capsys, read, *arguments) -> str:
    with pytest.raises(SystemExit) as end:
        read(*arguments)
    assert end.value.code == 0
    return capsys.readouterr().out


def test_help_comes_in_groups_with_every_option_and_default(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    text = shown(capsys, parse, Options, ["--help"])
    order = ["--model MODEL [options]", "the model:", "--full ", "the steps:", "--steps N", "--no-clip ", "options:"]
    assert sorted(order, key=text.index) == order and "--no-full" not in text
    for line in ("a rate (0: none; default: 0.001)", "how many (default: 10)", "a file, 100 % of it (default: none)"):
        assert line in text
    text = shown(capsys, parse, Lists, ["--help"])
    assert "SOURCES ..." in text and "(default: 1 3)" in text and "--prices IN OUT" in text and "--from {a,b}" in text
    assert "child" not in text


def test_a_default_is_on_one_line_with_its_name(capsys, monkeypatch):
    @dataclass(frozen=True)
    class Long:
        steps: int = option(10, "word " * 17 + "w")

    monkeypatch.setenv("COLUMNS", "120")
    assert "\n                            10)" not in shown(capsys, parse, Long, ["--help"])


def test_each_value_of_a_recipe_is_kept_with_where_it_came_from(tmp_path):
    recipe = tmp_path / "x.toml"
    recipe.write_text('model = "tiny"\nlr = 1\nsteps = 3\nfull = true\ntest = "t"')
    resolved = parse_with_recipe(Options, ["--config", str(recipe), "--steps", "7", "--no-full"])
    assert resolved.values == Options(model="tiny", lr=1.0, steps=7, test=Path("t"))
    assert resolved.as_dict()["steps"] == {"value": 7, "from": "command line"}
    assert resolved.sources == {
        "steps": "command line", "model": str(recipe), "lr": str(recipe), "full": "command line", "clip": "default",
        "test": str(recipe),
    }  # fmt: skip
    changed = resolved.with_values("--fit", steps=3)
    assert (changed.values.steps, changed.sources["steps"]) == (3, "--fit")
    recipe.write_text('sources = ["a", "b"]\nprices = [1, 2.5]\nfrom = ["a"]'.replace("from", "origins"))
    lists = parse_with_recipe(Lists, ["s", "--config", str(recipe)]).values
    assert (lists.sources, lists.prices, lists.origins) == (("s",), (1.0, 2.5), ("a",))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("learning_rate = 1", "unknown option 'learning_rate'"),
        ('steps = "3"', "steps must be int, not str"),
        ("steps = true", "steps must be int, not bool"),
        ("steps = 0", "--steps 0: must be at least 1"),
        ("steps = ", "not readable"),
    ],
)
def test_a_recipe_with_an_error_is_refused(tmp_path, text, reason):
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(UserError, match=reason):
        parse_with_recipe(Options, ["--model", "m", "--config", str(tmp_path / "x.toml")])


@pytest.mark.parametrize("text", ["k = 3", "k = [true]", "prices = [1]"])
def test_a_list_in_a_recipe_is_checked(tmp_path, text):
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(UserError, match="must be"):
        parse_with_recipe(Lists, ["s", "--config", str(tmp_path / "x.toml")])


def test_subcommands_have_a_dataclass_each(capsys, monkeypatch):
    def read(*arguments):
        monkeypatch.setattr(sys, "argv", ["search.py", *arguments])
        return parse_subcommand({"learn": Options, "list": Lists}, description="Two commands.")

    assert read("list", "s", "--k", "4") == Lists(sources=("s",), k=(4,))
    assert read("learn", "--model", "m") == Options(model="m")
    refused = {"none": ["none"], "COMMAND": [], "required: SOURCES": ["list"], "--lr": ["list", "s", "--lr", "1"]}
    for said, wrong in refused.items():
        with pytest.raises(UserError, match=said):
            read(*wrong)
    assert "Two commands." in shown(capsys, read, "--help")
    text = shown(capsys, read, "list", "--help")
    assert " list SOURCES ... [options]" in text and "--k" in text and "--model" not in text


def test_settings_are_what_json_holds():
    options = Options(model="m", test=Path("a/b"))
    assert as_settings(options, without=("clip",)) == {
        "steps": 10, "model": "m", "lr": 1e-3, "full": False, "test": "a/b",
    }  # fmt: skip


RECIPES = Path(__file__).resolve().parents[2] / "recipes"


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_the_recipes_of_the_project_have_options_of_their_script(recipe):
    (named,) = set(re.findall(r"python (train_\w+)\.py --config", recipe.read_text(encoding="utf-8")))
    script = importlib.import_module(named)
    given = [f"--{name}=x" for name in ("out", "data", "corpus") if name in script.Options.__dataclass_fields__]
    resolved = parse_with_recipe(script.Options, ["--config", str(recipe), *given])
    assert "model" in {name for name, source in resolved.sources.items() if source == str(recipe)}
