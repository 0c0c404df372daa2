"""Options of a command: a flat, typed dataclass, from which the command line, --help and the recipe follow.

    @dataclass(frozen=True, kw_only=True)
    class Options(ModelOptions):                        # shared options are a base class
        data: Path = option(help="rows to measure on")  # no default: required
        k: tuple[int, ...] = option((1, 3), "the ks of pass@k", least=1)  # --k 1 3

    options = parse(Options, description=__doc__)

A value is a str, int, float, bool or Path, a tuple of these, or None. Options that require or exclude one another are
checked in `__post_init__`, which raises UserError.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import math
import sys
import types
import typing
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from common.console import UserError, need

HIDDEN = argparse.SUPPRESS  # as help: an option that --help does not list
T = typing.TypeVar("T")


def option(
    default=dataclasses.MISSING,
    help: str = "",
    group: str | None = None,
    *,
    flag: str | None = None,
    positional: bool = False,
    metavar: str | tuple[str, ...] | None = None,
    least: float | None = None,
    most: float | None = None,
    choices: Collection[str] = (),
    nargs: str | None = None,
    const: object = None,
    repeated: bool = False,
) -> typing.Any:
    """A field of a command's dataclass.

    default      omit it to make the option required
    help         one line; the default is appended, unless the text names it: "(default: all cores)". Of a switch that
                 is on by default it describes --no-NAME
    group        heading in --help (default: "required" or "options"); the dataclass may order them by `GROUPS`
    flag         its name on the command line where the field's own will not do, such as --from
    positional   given without a flag
    least, most, choices  bounds of a value, or of each value of a tuple
    nargs        "*": a tuple may be given empty; "?": the value may be omitted, and is then `const`
    repeated     a tuple collected from several uses of the flag, one value each
    """
    metadata = {
        "help": help, "group": group, "flag": flag, "positional": positional, "metavar": metavar, "least": least,
        "most": most, "choices": choices, "nargs": nargs, "const": const, "repeated": repeated,
    }  # fmt: skip
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Resolved:
    """The options of a run, and where each value came from: "default", a recipe's path, "command line" or "code"."""

    values: typing.Any
    sources: dict[str, str]

    def as_dict(self) -> dict:
        """{name: {"value", "from"}}, as config.json keeps it."""
        return {name: {"value": getattr(self.values, name), "from": self.sources[name]} for name in self.sources}

    def with_values(self, source: str, **values) -> Resolved:
        """A copy with other values, which came from `source`."""
        return Resolved(dataclasses.replace(self.values, **values), self.sources | dict.fromkeys(values, source))


def parse(kind: type[T], arguments: list[str] | None = None, *, description: str | None = "") -> T:
    """The options of a command, from `arguments` (default: sys.argv). UserError for values that make no sense."""
    parser = _Parser(prog=_program(), description=description)
    parser.add_options_of(kind)
    return _resolve(kind, vars(parser.parse_args(arguments))).values


def parse_with_recipe(kind: type, arguments: list[str] | None = None, *, description: str | None = "") -> Resolved:
    """The same for a command with --config: the command line overrides the recipe, the recipe the defaults.

    UserError also for an unknown key and for a value of the wrong type in the recipe.
    """
    parser = _Parser(prog=_program(), description=description)
    parser.add_options_of(kind, with_recipe=True)
    given = vars(parser.parse_args(arguments))
    return _resolve(kind, given, recipe=given.pop("config", None))


def given_in_code(kind: type, **values) -> Resolved:
    """The same for values given in Python, in a notebook for example: those left out have their defaults."""
    if unknown := values.keys() - {spec.name for spec in dataclasses.fields(kind)}:
        raise UserError(f"unknown options {', '.join(sorted(unknown))}")
    return _resolve(kind, values, source="code")


def parse_subcommand(kinds: dict[str, type], *, description: str | None = "") -> typing.Any:
    """Options of `program NAME …`: an instance of that name's dataclass, whose docstring describes the subcommand."""
    program = _program()
    parser = _Parser(prog=program, usage=f"{program} COMMAND ...", description=description)
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True, prog=program)
    for name, kind in kinds.items():
        commands.add_parser(name, help=kind.__doc__, description=kind.__doc__).add_options_of(kind)
    parser.add_argument("-h", "--help", action="help", help="show this help and exit")
    given = vars(parser.parse_args())
    return _resolve(kinds[given.pop("command")], given).values


def name_and_value(argument: str) -> tuple[str, str]:
    """(NAME, VALUE) of an argument [NAME=]VALUE; the name is "" if there is none. A path that exists is a value."""
    name, _, value = ("", "", argument) if Path(argument).exists() else argument.rpartition("=")
    return name, value


def as_settings(options, *, without: Collection[str] = ()) -> dict:
    """{name: value} of a command's options, as JSON holds them, to be saved with its result."""
    values = {spec.name: getattr(options, spec.name) for spec in dataclasses.fields(options)}
    return {
        name: str(value) if isinstance(value, Path) else value for name, value in values.items() if name not in without
    }


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)

    def _split_lines(self, text: str, width: int) -> list[str]:
        """Wrapped, but for no break between "default:" and its value."""
        kept_together = text.replace("default: ", "default:\N{NO-BREAK SPACE}")
        return [line.replace("\N{NO-BREAK SPACE}", " ") for line in super()._split_lines(kept_together, width)]


class _Parser(argparse.ArgumentParser):
    """An argument parser whose options are the fields of a dataclass, and whose errors are one line."""

    def __init__(self, **settings) -> None:
        super().__init__(**settings, formatter_class=_Formatter, add_help=False, allow_abbrev=False)

    def error(self, message: str) -> typing.NoReturn:
        """UserError, which run_command prints, with status 2."""
        raise UserError(f"{message} (see {self.prog} --help)")

    def add_options_of(self, kind: type, *, with_recipe: bool = False) -> None:
        """Each field as an option under the heading of its group.

        Required ones come first and are part of the usage line, a class's own options before those that it inherits.
        """
        # the fields in the order in which they are shown
        hints = typing.get_type_hints(kind)
        declared = [name for each in kind.__mro__ for name in inspect.get_annotations(each)]
        specs = sorted(dataclasses.fields(kind), key=lambda spec: (not _is_required(spec), declared.index(spec.name)))

        # the headings: required ones, the class's GROUPS, any other, and the rest
        ordered = ["required", *getattr(kind, "GROUPS", ()), *(spec.metadata["group"] for spec in specs), "options"]
        groups = {title: self.add_argument_group(title) for title in dict.fromkeys(filter(None, ordered))}

        # each field under its heading; what must be given also in the usage line
        usage = [self.prog]
        for spec in specs:
            group, hint = groups[_group(spec)], hints[spec.name]
            if spec.metadata["positional"]:
                added = group.add_argument(spec.name, **_settings(spec, hint))
            else:
                added = _add_flag(group, spec, hint, with_recipe=with_recipe)
            if _is_required(spec):
                usage += [*added.option_strings[:1], f"{added.metavar} ..." if added.nargs == "+" else added.metavar]
            elif spec.metadata["positional"]:
                usage.append(f"[{added.metavar}]")

        # the two that no dataclass declares
        if with_recipe:
            groups["options"].add_argument(
                "--config", metavar="FILE",
                help="recipe with values for the options above, TOML; --no-NAME switches off what it switches on",
            )  # fmt: skip
        groups["options"].add_argument("-h", "--help", action="help", help="show this help and exit")
        self.usage = " ".join([*usage, "[options]"])


def _program() -> str:
    """How the command was started: "python train_sft.py" or "python -m eval.code"."""
    module = sys.modules["__main__"].__spec__
    return f"python -m {module.name.removesuffix('.__main__')}" if module else f"python {Path(sys.argv[0]).name}"


def _is_required(spec: dataclasses.Field) -> bool:
    return spec.default is dataclasses.MISSING


def _group(spec: dataclasses.Field) -> str:
    return spec.metadata["group"] or ("required" if _is_required(spec) else "options")


def _flag(spec: dataclasses.Field) -> str:
    if spec.metadata["positional"]:
        return spec.name.upper()
    return spec.metadata["flag"] or "--" + spec.name.replace("_", "-")


def _add_flag(group, spec: dataclasses.Field, hint, *, with_recipe: bool) -> argparse.Action:
    flag, help = _flag(spec), spec.metadata["help"].replace("%", "%%")
    if hint is not bool:
        return group.add_argument(flag, dest=spec.name, **_settings(spec, hint))
    switches = {"store_true": flag, "store_false": "--no-" + flag.removeprefix("--")}
    changes, keeps = reversed(switches) if spec.default else switches
    if with_recipe:  # what the recipe switched on can be switched off
        group.add_argument(switches[keeps], dest=spec.name, action=keeps, default=None, help=HIDDEN)
    return group.add_argument(switches[changes], dest=spec.name, action=changes, default=None, help=help)


def _settings(spec: dataclasses.Field, hint) -> dict:
    """Of an option with a value, as argparse's add_argument takes them."""
    kind, length = _value_type(hint)
    metadata = spec.metadata
    settings = {"type": kind, "help": _help_text(spec), "metavar": metadata["metavar"]}
    if settings["metavar"] is None:
        choices = "{" + ",".join(metadata["choices"]) + "}" if metadata["choices"] else None
        settings["metavar"] = choices or ("N" if kind in (int, float) else spec.name.upper())
    if metadata["repeated"]:
        return settings | {"action": "append"}
    nargs = metadata["nargs"] or length or ("?" if metadata["positional"] and not _is_required(spec) else None)
    return settings | ({"nargs": nargs} if nargs else {}) | ({"const": metadata["const"]} if nargs == "?" else {})


def _help_text(spec: dataclasses.Field) -> str:
    """The help with its default."""
    text, default = spec.metadata["help"], spec.default
    if text == HIDDEN:
        return text
    if not (_is_required(spec) or "(default" in text):
        values = default if isinstance(default, tuple) else [] if default in (None, "") else [default]
        shown = " ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values) or "none"
        text = f"{text[:-1]}; default: {shown})" if text.endswith(")") else f"{text} (default: {shown})"
    return text.replace("%", "%%")


def _value_type(hint) -> tuple[type, str | int | None]:
    """The type of a value, and how many: (int, None) of `int | None`, (str, "+") of `tuple[str, ...]`."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (hint,) = (member for member in typing.get_args(hint) if member is not types.NoneType)
    if typing.get_origin(hint) is not tuple:
        return hint, None
    kind, *rest = typing.get_args(hint)
    return kind, "+" if rest == [...] else 1 + len(rest)


def _resolve(kind: type, given: dict, recipe: str | None = None, source: str = "command line") -> Resolved:
    """The values by default, from the recipe, and as given by `source`; the later ones win."""
    # defaults, then the recipe, then what was given
    specs = {spec.name: spec for spec in dataclasses.fields(kind)}
    values = {name: spec.default for name, spec in specs.items()}
    sources = dict.fromkeys(values, "default")
    for name, value in (_read_recipe(Path(recipe), typing.get_type_hints(kind)) if recipe else {}).items():
        values[name], sources[name] = value, str(recipe)
    for name, value in given.items():
        if value is not None:
            values[name], sources[name] = tuple(value) if isinstance(value, list) else value, source

    # each value against its bounds; what concerns several options is the class's own business (__post_init__)
    if missing := [_flag(specs[name]) for name, value in values.items() if value is dataclasses.MISSING]:
        raise UserError(f"{', '.join(missing)} must be given (see {_program()} --help)")
    for name, spec in specs.items():
        for value in values[name] if isinstance(values[name], tuple) else [values[name]]:
            _refuse_nonsense(spec, value)
    return Resolved(kind(**values), sources)


def _refuse_nonsense(spec: dataclasses.Field, value) -> None:
    if value is None:
        return
    least, most, choices = (spec.metadata[key] for key in ("least", "most", "choices"))
    given = f"{_flag(spec)} {value}"
    if choices and value not in choices:
        raise UserError(f"{given}: must be one of {', '.join(choices)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{given}: must be a number")
    if least is not None and value < least:
        raise UserError(f"{given}: must be at least {least:g}")
    if most is not None and value > most:
        raise UserError(f"{given}: must be at most {most:g}")


def _read_recipe(path: Path, hints: dict) -> dict:
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
        if name not in hints:
            raise UserError(f"{path}: unknown option {key!r}; known are {', '.join(hints)}")
        values[name] = _typed(value, hints[name], where=f"{path}: {key}")
    return values


def _typed(value, hint, *, where: str):
    """A value of a recipe as the dataclass has it: TOML has no paths, no tuples, and whole numbers for floats."""
    # a list becomes a tuple
    kind, length = _value_type(hint)
    if length is not None:
        if not isinstance(value, list) or length not in ("+", len(value)):
            raise UserError(f"{where} must be a list" + (f" of {length}" if length != "+" else ""))
        return tuple(_typed(item, kind, where=where) for item in value)

    # 1 for a float, text for a path; nothing else is converted
    if (kind, type(value)) in ((float, int), (Path, str)):
        return kind(value)
    if type(value) is not kind:
        raise UserError(f"{where} must be {kind.__name__}, not {type(value).__name__}")
    return value
