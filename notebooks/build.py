"""The notebooks: each is made from one text, executed, and written with its outputs as NAME.ipynb and NAME.html.

    python -m notebooks.build [NAME ...]

The text, NAME.md, holds Markdown, code in ```python blocks, and

    {{ first_cell() }}                  the code that makes it ready wherever it is opened
    {{ section("training.md", 2) }}     the second section of a page in docs/, its code included
    {{ source(function) }}              the source of a function of this project, as it is now, to be read
    {{ code(function) }}                the same as a cell that defines it, to be changed and run
    {{ run.tracks.cpt.after }}          a figure of the run that NAME.json holds
    {% include 'parts/NAME.md' %}       what several notebooks share
    {% call solution() %} … {% endcall %}   what stays hidden until it is asked for

so that a lesson and the page it comes from are one text. NAME.json is what the last cell prints, if that is a JSON
object: the notebook's own figures, from which its text takes those that it names. The HTML needs no network.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import inspect
import os
import re
import sys
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from common.console import UserError, need, run_command
from common.files import read_json, read_text, write_text
from common.options import option, parse
from eval import change_table

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MOST_BYTES = 2_000_000  # of a notebook, and of its HTML
NEEDS = ("jupytext", "nbformat", "nbclient", "nbconvert")
PICTURE = re.compile(r"!\[(?P<alt>[^]]*)\]\((?P<path>[^)]+\.svg)\)")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
BEYOND_FOLDER = re.compile(r"\]\((?!\.\./|https?:|#)([^)]+)\)")  # a link within docs/


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of this command."""

    names: tuple[str, ...] = option((), "notebooks to build (default: all)", positional=True, nargs="*")
    text: bool = option(False, "only the text has changed: keep the outputs of the cells")


def main() -> None:
    """Build, and say how large each is."""
    options = parse(Options, description=__doc__)
    need_all()
    for name in options.names or names():
        if name not in names():
            raise UserError(f"{name}: no such notebook; there are {', '.join(names())}")
        notebook = with_new_text(name) if options.text else executed(assembled(name))
        if figures := last_printed(notebook):
            write_text(HERE / f"{name}.json", figures)
            notebook = with_text_of(assembled(name), notebook)
        for path, text in written(name, notebook).items():
            if len(text.encode()) > MOST_BYTES:
                raise UserError(f"{path.name} would have {len(text.encode()):,} bytes, more than {MOST_BYTES:,}")
            write_text(path, text)
            print(f"wrote    {path.relative_to(ROOT)}  {len(text.encode()) // 1024} KiB")


def need_all() -> None:
    """UserError if a package that makes notebooks is missing."""
    for name in NEEDS:
        need(name, why="making notebooks")


def names() -> list[str]:
    """All notebooks, by the names of their texts."""
    return sorted(path.stem for path in HERE.glob("*.md") if path.stem != "README")


def write_report_notebook(folder: Path, *, title: str) -> Path:
    """Write folder/report.ipynb of a finished quickstart, executed, and return its path."""
    import nbformat

    figures = {"run": read_json(folder / "metrics.json"), "title": title}
    places = {"home": repr(str(ROOT)), "folder": repr(str(folder.resolve()))}
    notebook = executed(notebook_of(environment().get_template("parts/report.md").render(figures, **places)))
    write_text(folder / "report.ipynb", nbformat.writes(notebook) + "\n")
    return folder / "report.ipynb"


def assembled(name: str):
    """The notebook of a text with its figures so far, not executed."""
    return notebook_of(rendered(name))


def notebook_of(text: str):
    """The notebook of a rendered text: an nbformat NotebookNode, with the hash of what it is made from."""
    import jupytext

    notebook = jupytext.reads(text, fmt="md")
    notebook.metadata = {
        "title": text.partition("\n")[0].removeprefix("# "),
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "tritune": {"sha256": hashlib.sha256(text.encode()).hexdigest()},
    }
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", {}  # else drawn by chance
        if cell.cell_type == "markdown":
            cell.source = PICTURE.sub(embedded, cell.source)
    return notebook


def last_printed(notebook) -> str | None:
    """What the last cell prints, if it is a JSON object."""
    outputs = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"][-1]
    text = "".join(output.get("text", "") for output in outputs)
    return text if text.startswith("{") else None


def with_new_text(name: str):
    """The notebook as it was executed, with its text as it is now. UserError if a code cell has changed."""
    import nbformat

    return with_text_of(assembled(name), nbformat.read(HERE / f"{name}.ipynb", 4))


def with_text_of(fresh, notebook):
    """The fresh notebook, with the outputs of one that has the same code."""
    cells, run_cells = ([cell for cell in one.cells if cell.cell_type == "code"] for one in (fresh, notebook))
    if [cell.source for cell in cells] != [cell.source for cell in run_cells]:
        raise UserError("a code cell has changed; build it without --text")
    for cell, run in zip(cells, run_cells, strict=True):
        cell.outputs, cell.execution_count = run.outputs, run.execution_count
    return fresh


def embedded(picture: re.Match) -> str:
    """A picture within the text: a notebook is often opened without the files beside it."""
    data = base64.b64encode((HERE / picture["path"]).read_bytes()).decode()
    return f"![{picture['alt']}](data:image/svg+xml;base64,{data})"


def rendered(name: str) -> str:
    """The text of a notebook with everything that it refers to."""
    functions = {"section": section, "source": source, "code": code, "solution": solution, "first_cell": first_cell}
    figures = HERE / f"{name}.json"
    run = read_json(figures) if figures.is_file() else {}  # before the first run
    return environment().get_template(f"{name}.md").render(functions, run=run)


def environment() -> jinja2.Environment:
    """What renders the texts, and writes figures as the tables do."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), undefined=jinja2.ChainableUndefined, keep_trailing_newline=True
    )
    found.filters["number"] = number
    return found


def number(value: int | float | jinja2.Undefined, *, sign: bool = False) -> str:
    """A figure in the text, as the tables write it; "(?)" if the run has none such."""
    if isinstance(value, jinja2.Undefined):
        return "(?)"
    return f"{value:,}" if isinstance(value, int) else change_table.number(value, sign=sign)


def first_cell() -> str:
    """The code that makes a notebook ready wherever it is opened."""
    return f"```python\n{read_text(HERE / 'first_cell.py')}```"


def section(page: str, number: int) -> str:
    """Section `number` of a page in docs/, its heading without the number. UserError if there is none."""
    parts = re.split(r"^## ", read_text(ROOT / "docs" / page), flags=re.MULTILINE)
    found = [part for part in parts[1:] if part.startswith(f"{number}. ")]
    if not found:
        raise UserError(f"docs/{page} has no section {number}")
    text = found[0].split(". ", 1)[1].rstrip()
    return "## " + BEYOND_FOLDER.sub(r"](../docs/\1)", text)


def source(name: str) -> str:
    """The code of a function or method, to be read: "model.loss.causal_lm_loss"."""
    return f"<!-- #region -->\n```python\n{source_of(name)[1]}```\n<!-- #endregion -->"


def code(name: str) -> str:
    """The code of a function as a cell, with everything that its module knows."""
    module, text = source_of(name)
    return f"```python\nfrom {module} import *\n\n\n{text}```"


def source_of(name: str) -> tuple[str, str]:
    """The module of a function or method, and its code."""
    path = (ROOT / name.replace(".", "/")).parents
    file = next(folder for folder in path if folder.with_suffix(".py").is_file())
    module = ".".join(file.relative_to(ROOT).parts)
    found: Any = importlib.import_module(module)
    for part in name.removeprefix(f"{module}.").split("."):
        found = getattr(found, part)
    return module, textwrap.dedent(inspect.getsource(inspect.unwrap(found)))


def solution(caller) -> str:
    """A cell that hides its text until it is opened."""
    hidden = f"<details><summary>Solution</summary>\n\n{caller().strip()}\n\n</details>"
    return f"<!-- #region -->\n{hidden}\n<!-- #endregion -->"


def executed(notebook):
    """The notebook with the outputs of its cells, run from top to bottom in a folder of its own within the project."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError
    from traitlets.config import Config

    with tempfile.TemporaryDirectory() as sockets, tempfile.TemporaryDirectory(dir=HERE) as folder:
        config = Config({"ConnectionFileMixin": {"transport": "ipc", "ip": f"{sockets}/kernel"}})  # no open port
        client = NotebookClient(notebook, timeout=None, config=config, resources={"metadata": {"path": folder}})
        try:
            client.execute(env=os.environ | {"TQDM_DISABLE": "1"})  # a progress bar is no result
        except CellExecutionError as error:
            said = COLOURS.sub("", str(error))
            raise UserError(f"a cell failed:\n{said}") from error
    for cell in notebook.cells:
        cell.metadata = {}  # when it ran
        for output in cell.get("outputs", ()):
            if "text" in output:
                output.text = output.text.replace(f"{ROOT}/", "")
    return notebook


def written(name: str, notebook) -> dict[Path, str]:
    """The two files of an executed notebook."""
    import nbformat
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    own_style = Config({"CSSHTMLHeaderPreprocessor": {"enabled": False}})  # ours alone
    exporter = HTMLExporter(template_name="page", extra_template_basedirs=[str(HERE)], config=own_style)
    resources = {"metadata": {"name": name}, "page_css": read_text(ROOT / "common" / "page.css")}
    html, _ = exporter.from_notebook_node(notebook, resources)
    return {HERE / f"{name}.ipynb": nbformat.writes(notebook) + "\n", HERE / f"{name}.html": html}


if __name__ == "__main__":
    sys.exit(run_command(main))
