"""Options of a script: a flat dataclass, from which its command line and its recipe follow.

A value comes from the dataclass (default), from a recipe (--config x.toml), or from the command line, the later ones
first. Each is saved with the run together with where it came from.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import typing
from dataclasses import dataclass, field
from pathlib import Path

from common.console import UserError, need


def option(
    default=dataclasses.MISSING,
    text: str = "",
    *,
    least: float | None = None,
    most: float | None = None,
    choices: tuple[str, ...] | None = None,
):
    """A field with its help text and the values that make sense; without a default it is required."""
    return field(default=default, metadata={"help": text, "least": least, "most": most, "choices": choices})


@dataclass(frozen=True)
class Resolved:
    """The options of a run, and where each value came from: "default", a recipe's path, or "command line"."""

    values: typing.Any
    sources: dict[str, str]

    def as_dict(self) -> dict:
        """{name: {"value", "from"}}, as config.json keeps it."""
        return {name: {"value": getattr(self.values, name), "from": self.sources[name]} for name in self.sources}

    def with_values(self, source: str, **values) -> Resolved:
        """The same with other values, which came from `source`."""
        return Resolved(dataclasses.replace(self.values, **values), self.sources | dict.fromkeys(values, source))


def parse(kind: type, arguments: list[str] | None = None, *, description: str = "") -> Resolved:
    """Options of dataclass `kind` from command-line arguments and the recipe that they name.

    Raises UserError for a recipe with an unknown key or a value of the wrong type, and for a value that makes no sense;
    argparse itself ends the program with status 2 for the rest.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", metavar="FILE", help="a recipe (TOML) with values for the options below")
    types = typing.get_type_hints(kind)
    own, shared = parser.add_argument_group("this script's own"), parser.add_argument_group("shared by the scripts")
    for spec in dataclasses.fields(kind):
        _add_argument(own if spec.name in kind.__annotations__ else shared, spec, types[spec.name])
    given = vars(parser.parse_args(arguments))
    recipe = given.pop("config", None)
    values = {spec.name: spec.default for spec in dataclasses.fields(kind)}
    sources = dict.fromkeys(values, "default")
    for name, value in (_read_recipe(Path(recipe), types) if recipe else {}).items():
        values[name], sources[name] = value, recipe
    for name, value in given.items():
        values[name], sources[name] = value, "command line"
    missing = [f"--{name.replace('_', '-')}" for name, value in values.items() if value is dataclasses.MISSING]
    if missing:
        parser.error(f"{', '.join(missing)} must be given, here or in a recipe")
    for spec in dataclasses.fields(kind):
        _refuse_nonsense(spec, values[spec.name])
    return Resolved(kind(**values), sources)


def _refuse_nonsense(spec: dataclasses.Field, value) -> None:
    least, most, choices = (spec.metadata[key] for key in ("least", "most", "choices"))
    flag = f"--{spec.name.replace('_', '-')} {value}"
    if choices and value not in choices:
        raise UserError(f"{flag}: must be one of {', '.join(choices)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{flag}: must be a number")
    if least is not None and value < least:
        raise UserError(f"{flag}: must be at least {least:g}")
    if most is not None and value > most:
        raise UserError(f"{flag}: must be at most {most:g}")


def _plain_type(hint) -> type:
    """int of `int | None`."""
    arguments = [argument for argument in typing.get_args(hint) if argument is not type(None)]
    return arguments[0] if arguments else hint


def _add_argument(group: argparse._ArgumentGroup, spec: dataclasses.Field, hint) -> None:
    flag = "--" + spec.name.replace("_", "-")
    text = spec.metadata["help"]
    if spec.metadata["choices"]:
        text = f"{', '.join(spec.metadata['choices'])}: {text}"
    if spec.default is not dataclasses.MISSING and spec.default is not None and hint is not bool:
        text += f" (default: {spec.default})"
    text = text.replace("%", "%%")
    if hint is bool:
        state = "on" if spec.default else "off"
        group.add_argument(
            flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=f"{text} (default: {state})"
        )
    else:
        group.add_argument(
            flag, type=_plain_type(hint), default=argparse.SUPPRESS, help=text, metavar=spec.name.upper()
        )


def _read_recipe(path: Path, types: dict) -> dict:
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        tomllib = need("tomli", why="reading a recipe on Python 3.10")
    try:
        recipe = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: not readable as a TOML recipe ({error})") from None
    values = {}
    for key, value in recipe.items():
        name = key.replace("-", "_")
        if name not in types:
            raise UserError(f"{path}: unknown option {key!r}; known are {', '.join(types)}")
        wanted = _plain_type(types[name])
        if wanted is float and type(value) is int:
            value = float(value)
        if type(value) is not wanted:
            raise UserError(f"{path}: {key} must be {wanted.__name__}, not {type(value).__name__}")
        values[name] = value
    return values
