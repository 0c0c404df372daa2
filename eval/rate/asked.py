"""What was asked: the prompt of each task, and the answer that the data has for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.console import UserError
from common.files import read_objects
from eval.code.task_files import read_code_tasks
from eval.rate.votes import task_id

REFERENCES = ("output", "canonical_solution", "code")  # where instruction pairs, code tasks and MBPP have the answer
_SHOWN = ("instruction", "prompt", "text", "input")  # what was asked, of a row of data


@dataclass(frozen=True)
class Asked:
    """The tasks of a result.

    source      their file or name; None if it is not at hand
    prompts     task id -> what was asked
    references  task id -> the data's own answer, where it has one
    """

    source: str | None
    prompts: dict[str, str]
    references: dict[str, str]

    def as_result(self) -> dict:
        """The data's own answers, in the form of a result. UserError if there are none."""
        if not self.references:
            raise UserError(
                f"{self.source or 'no data'}: no reference answers ({', '.join(REFERENCES)}) to compare with; give a "
                "second result, or --data with such answers"
            )
        return {"results": [{"id": i, "output": answer} for i, answer in self.references.items()]}


def read_asked(result: dict, data: str | None) -> Asked:
    """The tasks of a result of eval.instruct or eval.code.

    data  their file (default: the one that the result names). UserError if it cannot be read; a file that only the
          result names may be missing, for the result may have been made elsewhere
    """
    settings = result.get("settings", {})
    if settings.get("tasks"):
        try:
            tasks = read_code_tasks(data or settings["tasks"], "all")
        except UserError:
            if data:
                raise
            return Asked(None, {}, {})
        prompts = {task.task_id: "\n\n".join([task.prompt.strip(), "\n".join(task.shown)]).strip() for task in tasks}
        golds = {task.task_id: task.gold for task in tasks if task.gold is not None}
        return Asked(data or settings["tasks"], prompts, golds)

    source = data or settings.get("data")
    if not source or (not data and not Path(source).exists()):
        return Asked(None, {}, {})
    rows = read_objects(source)
    references = {task_id(row): next((row[k] for k in REFERENCES if isinstance(row.get(k), str)), None) for row in rows}
    return Asked(
        source,
        {task_id(row): "\n\n".join(str(row[key]) for key in _SHOWN if row.get(key)) for row in rows},
        {i: answer for i, answer in references.items() if answer},
    )
