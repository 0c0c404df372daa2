"""The notebooks: each is made from one text, executed, and written with its outputs as NAME.ipynb and NAME.html.

    python -m notebooks.build [NAME ...]

The text, NAME.md, holds Markdown, code in ```python blocks, and

    {{ first_cell() }}                  the code that makes it ready wherever it is opened
    {{ section("training.md", 2) }}     the second section of a page in docs/, its code included
    {{ source(function) }}              the source of a function of this project, as it is now
    {% call solution() %} … {% endcall %}   what stays hidden until it is asked for

so that a lesson and the page it comes from are one text. The HTML needs no network.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import inspect
import re
import sys
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from common.console import UserError, need, run_command
from common.files import read_text, write_text
from common.options import option, parse

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


def main() -> None:
    """Build, and say how large each is."""
    options = parse(Options, description=__doc__)
    for name in NEEDS:
        need(name, why="making notebooks")
    for name in options.names or names():
        if name not in names():
            raise UserError(f"{name}: no such notebook; there are {', '.join(names())}")
        notebook = executed(assembled(name))
        for path, text in written(name, notebook).items():
            if len(text.encode()) > MOST_BYTES:
                raise UserError(f"{path.name} would have {len(text.encode()):,} bytes, more than {MOST_BYTES:,}")
            write_text(path, text)
            print(f"wrote    {path.relative_to(ROOT)}  {len(text.encode()) // 1024} KiB")


def names() -> list[str]:
    """All notebooks, by the names of their texts."""
    return sorted(path.stem for path in HERE.glob("*.md") if path.stem != "README")


def assembled(name: str):
    """The notebook of a text, not executed: an nbformat NotebookNode, with the hash of what it is made from."""
    import jupytext

    text = rendered(name)
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


def embedded(picture: re.Match) -> str:
    """A picture within the text: a notebook is often opened without the files beside it."""
    data = base64.b64encode((HERE / picture["path"]).read_bytes()).decode()
    return f"![{picture['alt']}](data:image/svg+xml;base64,{data})"


def rendered(name: str) -> str:
    """The text of a notebook with everything that it refers to."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    functions = {"section": section, "source": source, "solution": solution, "first_cell": first_cell}
    return environment.get_template(f"{name}.md").render(functions)


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
    path = (ROOT / name.replace(".", "/")).parents
    file = next(folder for folder in path if folder.with_suffix(".py").is_file())
    module = ".".join(file.relative_to(ROOT).parts)
    found: Any = importlib.import_module(module)
    for part in name.removeprefix(f"{module}.").split("."):
        found = getattr(found, part)
    code = textwrap.dedent(inspect.getsource(inspect.unwrap(found)))
    return f"<!-- #region -->\n```python\n{code}```\n<!-- #endregion -->"


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
            client.execute()
        except CellExecutionError as error:
            said = COLOURS.sub("", str(error))
            raise UserError(f"a cell failed:\n{said}") from error
    for cell in notebook.cells:
        cell.metadata = {}  # when it ran
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
