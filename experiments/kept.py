"""What came of an experiment's stages, small enough to be part of the project: no weights, no data, no long texts.

    runs/NAME/                  everything that the stages leave
    experiments/NAME/done/      of finished stages the files that results.json is made of

A clone of the project continues an experiment from these files: a stage counts as done if its files are here, unless
an unfinished stage needs more of what it made, as evaluation needs the adapter.
"""

from __future__ import annotations

import json
import shutil
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.console import UserError
from common.files import read_json, to_json, write_json, write_text
from common.options import as_settings
from experiments.stages import Stage

SETTINGS = "settings.json"
MOST = 300  # characters of a text in the rows of an eval result: answers and messages may be longer
DESCRIBE_A_FOLDER = ("about.json", "corpus.json", "metrics.json")  # written last of a folder of data or of a run


@dataclass(frozen=True)
class Kept:
    """The two folders, and what the stages' options are; UserError if files are kept of others."""

    out: Path
    done: Path
    settings: dict

    def __post_init__(self) -> None:
        file, own = self.done / SETTINGS, json.loads(to_json(self.settings))
        of_files = read_json(file) if file.is_file() else own
        if different := [name for name, value in own.items() if of_files.get(name) != value]:
            raise UserError(f"{self.done}: holds results of other {', '.join(different)}; give another --results")

    def restore(self, stages: Sequence[Stage]) -> None:
        """Put what is kept of these stages where they would have left it, if nothing that is to be run needs more."""
        for number, one in reversed(list(enumerate(stages))):
            read_by = [later for later in stages[number + 1 :] if reads(later, one) and not one.whole]
            if not one.done.is_file() and self._of(one.done).is_file() and all(s.done.is_file() for s in read_by):
                for file in (*one.also, one.done):  # the file that marks it as done comes last
                    if self._of(file).is_file():
                        file.parent.mkdir(parents=True, exist_ok=True)
                        shutil.copyfile(self._of(file), file)

    def keep(self, stages: Sequence[Stage]) -> None:
        """Keep the files of the stages that are done."""
        write_json(self.done / SETTINGS, self.settings)
        for one in (one for one in stages if one.done.is_file()):
            for file in (one.done, *one.also):
                if file.suffix in (".json", ".jsonl") and file.is_file() and not self._of(file).exists():
                    write_text(self._of(file), short_text(file))

    def _of(self, file: Path) -> Path:
        return self.done / file.relative_to(self.out)


def kept_results(options: Any, *, apart_from: Sequence[str] = ()) -> Kept:
    """Of an experiment with --out and --results. `apart_from`: options that choose stages, or name files."""
    without = ("out", "results", "max_minutes", "plan", *apart_from)
    return Kept(options.out, options.results / "done", as_settings(options, without=without))


def reads(later: Stage, one: Stage) -> bool:
    """Whether a command names what a stage has left, or a folder that holds it."""
    left = one.done.parent if one.done.name in DESCRIBE_A_FOLDER else one.done
    named = [Path(part) for part in later.command]
    return any(path.is_relative_to(left) or (path != Path() and left.is_relative_to(path)) for path in named)


def short_text(file: Path) -> str:
    """The text of a file; of an eval result, without the long texts in its rows."""
    if file.suffix != ".json" or not isinstance(found := read_json(file), dict) or "results" not in found:
        return file.read_text(encoding="utf-8")
    rows = [
        {name: value for name, value in row.items() if not (isinstance(value, str) and len(value) > MOST)}
        for row in found["results"]
    ]
    text = to_json(found | {"results": rows}) + "\n"
    for place in ("purelib", "stdlib"):  # messages of errors name files of this machine
        text = text.replace(f"{sysconfig.get_path(place)}/", "")
    return text
