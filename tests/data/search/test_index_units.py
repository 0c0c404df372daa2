"""What of a repository is searched: units of files, classes and functions, and files that are not read again."""

import os
import subprocess

import pytest

from common.console import UserError
from data.corpus import SourceFile
from data.search import contents
from data.search.contents import read_contents
from data.search.units import documented_units

PYTHON = '''"""Trees.

More about them.
"""
LIMIT = 3


@final
class Tree(Graph):
    """Without cycles."""

    root = None

    def depth(self, node,
              above=0):
        """How deep."""
        return above

    class Node:
        def leaf(self): return True


if LIMIT:
    class Late:
        pass


def plant():
    """Plants one."""
    class Inner:
        pass
    return Tree()
'''
SCRIPT = """/** Boxes. */
import x from "x";

/** A box. */
export class Box<T> extends Base {
  items: T[] = [];
  /** Puts it in. */
  put(item: T): void {
    this.items.push(item);
  }
  size = () => {
    return this.items.length;
  };
}
export interface Shape { area(): number; }
namespace Inner { export class Deep {} }
const Named = class {};
"""


def units_of(path, text):
    return documented_units(SourceFile(path, text, "", license=None, commit=None, split=""))


def test_a_python_file_its_classes_and_its_functions_are_units():
    units = units_of("pkg/tree.py", PYTHON)
    place = [(unit["kind"], unit["source"]["qualname"], *unit["source"]["lines"]) for unit in units]
    assert place == [
        ("file", None, 1, 32),
        ("class", "Tree", 8, 20),
        ("function", "Tree.depth", 14, 17),
        ("class", "Tree.Node", 19, 20),
        ("function", "Tree.Node.leaf", 20, 20),
        ("class", "Late", 24, 25),
        ("function", "plant", 28, 32),
    ]
    codes = {unit["source"]["qualname"]: unit["code"] for unit in units}
    assert codes[None].startswith("# pkg/tree.py\nTrees.\n\nMore about them.\nclass Tree: depth\n")
    assert codes["Tree"] == (
        '@final\nclass Tree(Graph):\n    """Without cycles."""\n\n    root = None\n\n    def depth(self, node,\n'
        "              above=0):\n\n    class Node:\n        def leaf(self): return True"
    )
    assert codes["Tree.Node"] == "class Node:\n    def leaf(self): return True"
    assert codes["Tree.Node.leaf"] == "def leaf(self): return True"
    assert '"""Plants one."""' in codes["plant"] and codes["Tree.depth"].startswith("def depth(self, node,\n")
    assert all(set(unit["source"]) == {"path", "qualname", "lines"} for unit in units)


def test_one_line_functions_and_named_lambdas_are_units():
    text = (
        "def f(x): return x\n\n\n@cache\ndef g(): return 1\n\n\nh: Callable = lambda x: (\n    x + 1\n)\n"
        "a = lambda: 1; b = lambda: 2\nclass C:\n    key = lambda self: 3\n    other = d[0] = lambda: 4\n"
        "if True:\n    k = lambda: 5\ntable = {1: lambda: 6}\n\n\n"
        "def outer():\n    inner = lambda: 7\n    return inner\n"
    )
    units = [unit for unit in units_of("a.py", text) if unit["kind"] == "function"]
    assert [(unit["source"]["qualname"], *unit["source"]["lines"]) for unit in units] == [
        ("f", 1, 1), ("g", 4, 5), ("h", 8, 10), ("a", 11, 11), ("C.key", 13, 13), ("k", 16, 16), ("outer", 20, 22),
    ]  # fmt: skip
    codes = [unit["code"] for unit in units]
    assert codes[1] == "@cache\ndef g(): return 1" and codes[4] == "key = lambda self: 3"
    assert all(set(unit["source"]) == {"path", "qualname", "lines"} for unit in units)
    assert len({unit["id"] for unit in units}) == len(units)


def test_a_typescript_file_its_classes_and_its_functions_are_units():
    pytest.importorskip("tree_sitter_typescript")
    units = units_of("src/box.ts", SCRIPT)
    assert [(unit["kind"], unit["source"]["qualname"], *unit["source"]["lines"]) for unit in units] == [
        ("file", None, 1, 17),
        ("class", "Box", 5, 14),
        ("function", "Box.put", 8, 10),
        ("function", "Box.size", 11, 13),
        ("class", "Shape", 15, 15),
        ("class", "Inner.Deep", 16, 16),
        ("class", "Named", 17, 17),
    ]
    assert units[0]["code"].startswith("# src/box.ts\n/** Boxes. */\nexport class Box")
    assert units[1]["code"] == (
        "/** A box. */\nexport class Box<T> extends Base {\n  items: T[] = [];\n  /** Puts it in. */\n"
        "  put(item: T): void {\n  size = () => {\n}"
    )
    assert units[2]["code"].startswith("/** Puts it in. */\nput(item: T)")


def test_a_file_may_nest_deeper_than_pythons_stack():
    chain = "if x == 0:\n    class A: pass\n" + "".join(f"elif x == {i}:\n    pass\n" for i in range(1, 1200))
    assert [unit["id"] for unit in units_of("a.py", chain)] == ["a.py", "a.py:2"]
    pytest.importorskip("tree_sitter_javascript")
    calls = "class A {}\nlet x = " + "call(\n" * 3000 + "1" + ")\n" * 3000 + ";\nfunction after() { return 1; }\n"
    assert [unit["id"] for unit in units_of("a.js", calls)] == ["a.js", "a.js:1", "a.js:6003"]


@pytest.mark.parametrize("suffix", ["ts", "tsx"])
def test_a_script_with_a_piece_missing_anywhere_still_has_units(suffix):
    pytest.importorskip("tree_sitter_typescript")
    for start in range(0, len(SCRIPT), 2):
        for missing in (1, 9, len(SCRIPT)):
            assert units_of(f"box.{suffix}", SCRIPT[:start] + SCRIPT[start + missing :])[0]["kind"] == "file"


@pytest.fixture
def folder(tmp_path):
    files = {
        "pkg/a.py": "def one():\n    return 1\n",
        "pkg/ünï code/b.py": "class Two:\n    '''Two.'''\n",
        "pkg/empty.py": "\n",
        "pkg/broken.py": "def x(:\n",
        "node_modules/z.js": "function z() {}\n",
        "tests/test_a.py": "def test_one():\n    assert one()\n",
        "README.md": "# no code\n",
    }
    for name, text in files.items():
        (tmp_path / "repo" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "repo" / name).write_text(text, encoding="utf-8")
    (tmp_path / "repo/pkg/latin.py").write_bytes(b"x = '\xff'\n")
    (tmp_path / "repo/pkg/link.py").symlink_to("a.py")
    return tmp_path / "repo"


def test_short_files_stay_and_what_is_left_out_is_counted(folder):
    found = read_contents(str(folder))
    assert [unit["id"] for unit in found.units] == [
        "pkg/a.py", "pkg/a.py:1", "pkg/ünï code/b.py", "pkg/ünï code/b.py:1",
    ]  # fmt: skip
    assert found.left_out == {
        "empty": 1, "does not parse": 1, "vendored": 1, "test file": 1, "not UTF-8": 1, "link": 1,
    }  # fmt: skip
    assert found.root == folder
    assert "tests/test_a.py:1" in [unit["id"] for unit in read_contents(str(folder), tests=True).units]


def test_what_tree_sitter_reads_in_part_stays(folder):
    pytest.importorskip("tree_sitter_c")
    (folder / "odd.c").write_text("int before(void) { return 1; }\nFOO(bar { ;;; ]] \n" + "\n#if\n]]" * 20)
    found = read_contents(str(folder))
    assert "odd.c:1" in [unit["id"] for unit in found.units] and found.left_out["does not parse"] == 1  # broken.py


def test_only_what_changed_is_parsed_again(folder, monkeypatch):
    before = read_contents(str(folder))
    (folder / "pkg/a.py").write_text("def one():\n    return 11\n")
    (folder / "pkg/c.py").write_text("def three():\n    return 3\n")
    (folder / "pkg/ünï code/b.py").unlink()
    fresh = read_contents(str(folder))
    parsed, parse = [], contents._parse
    monkeypatch.setattr(contents, "_parse", lambda path, *rest: parsed.append(path) or parse(path, *rest))
    again = read_contents(str(folder), files=before.files, units=before.units)
    assert parsed == ["pkg/a.py", "pkg/c.py"]
    assert again == fresh and again.units != before.units


def test_a_git_repository_is_searched_without_what_it_ignores(folder):
    (folder / ".gitignore").write_text("secret/\n")
    (folder / "secret").mkdir()
    (folder / "secret/s.py").write_text("def s():\n    return 's'\n")
    assert "secret/s.py" in [unit["id"] for unit in read_contents(str(folder)).units]
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    subprocess.run(["git", "-C", str(folder), "add", "pkg/a.py"], check=True)
    (folder / "pkg/new.py").write_text("def new():\n    return 'not added yet'\n")
    files = {unit["source"]["path"] for unit in read_contents(str(folder)).units}
    assert files == {"pkg/a.py", "pkg/new.py", "pkg/ünï code/b.py"}
    (folder / "pkg/a.py").unlink()  # deleted, and not committed
    found = read_contents(str(folder))
    assert "pkg/a.py" not in [unit["id"] for unit in found.units] and "not readable" not in found.left_out


def test_a_language_that_cannot_be_read_here_is_left_out_and_told(folder, monkeypatch):
    (folder / "a.ts").write_text("function a() { return 1; }\n")
    find_spec = contents.importlib.util.find_spec
    monkeypatch.setattr(
        contents.importlib.util, "find_spec", lambda name: None if "typescript" in name else find_spec(name)
    )
    left_out = read_contents(str(folder)).left_out
    assert left_out["typescript needs pip install tree-sitter-typescript"] == 1


def test_nothing_to_search_is_one_line(tmp_path):
    with pytest.raises(UserError, match="nothing to search in it: no source file"):
        read_contents(str(tmp_path))
    (tmp_path / "x.py").write_text("def x(:\n")
    with pytest.raises(UserError, match=r"nothing to search in it: skipped 1 \(does not parse\)"):
        read_contents(str(tmp_path))


def test_several_processes_read_what_one_does(tmp_path, monkeypatch):
    for number in range(9):
        (tmp_path / f"m{number}.py").write_text(f"def f{number}():\n    return {number}\n" * (number + 1))
    (tmp_path / "broken.py").write_text("def f(:\n")
    (tmp_path / os.fsdecode(b"caf\xe9.py")).write_text("x = 1\n")
    alone = read_contents(str(tmp_path))
    monkeypatch.setattr("data.search.contents.processes_for", lambda files: 3)
    assert read_contents(str(tmp_path)) == alone
    assert alone.left_out["does not parse"] == 1 and len(alone.files) == 11
    assert read_contents(str(tmp_path), files=alone.files, units=alone.units) == alone
