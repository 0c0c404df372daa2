from __future__ import annotations

import ast
import importlib.util
import random
import subprocess
import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from common.python_syntax import module_name
from data.import_order import import_order, imported_files, repository_text


def imports_of(path, text, *paths):
    return imported_files(path, text, {module_name(other): other for other in (path, *paths)})


def test_what_a_file_imports_stands_before_it():
    files = {"a.py": "import b\n", "b.py": "from c import x\n", "c.py": "x = 1\n", "d.py": "import a, c\n"}
    assert import_order(files) == ["c.py", "b.py", "a.py", "d.py"]


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 9).flatmap(lambda n: st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)))), st.data()
)
def test_only_files_that_import_each_other_in_a_circle_may_stand_before_what_they_import(edges, data):
    names = {name for edge in edges for name in edge}
    imports = {name: {other for one, other in edges if one == name} for name in names}
    reach = {name: set(imports[name]) for name in names}
    for _ in names:
        reach = {name: set().union(near, *(reach[other] for other in near)) for name, near in reach.items()}
    files = {f"m{name}.py": "".join(f"import m{other}\n" for other in sorted(imports[name])) for name in names}
    order = import_order(files)
    assert sorted(order) == sorted(files)
    for one, other in edges:
        if one != other and one not in reach[other]:
            assert order.index(f"m{other}.py") < order.index(f"m{one}.py")
    shuffled = data.draw(st.permutations(list(files)))
    assert import_order({path: files[path] for path in shuffled}) == order


def test_a_file_in_another_language_keeps_its_place():
    files = {"b.py": "import c\n", "a.ts": 'import { x } from "c";\n', "c.py": "x = 1\n"}
    assert import_order(files) == ["a.ts", "c.py", "b.py"]


def test_a_circle_is_cut_where_it_closes():
    files = {"a.py": "import b\n", "b.py": "import c\n", "c.py": "import a\n", "0.py": "import c\n"}
    assert import_order(files) == ["b.py", "a.py", "c.py", "0.py"]


def test_a_file_that_imports_from_a_circle_comes_after_it():
    files = {"a.py": "import y\n", "x.py": "import y\n", "y.py": "import x\nimport z\n", "z.py": "import x\n"}
    assert import_order(files)[-1] == "a.py"  # it has the fewest imports left of all when the circle is begun


def test_the_order_is_the_one_in_which_python_loads_the_files(tmp_path):
    rng, names = random.Random(3), [f"m{i}" for i in range(12)]
    files = {"pkg/__init__.py": "from . import m3, m7\n"}
    for name in names:
        others = rng.sample(names, 2)
        files[f"pkg/{name}.py"] = f"import pkg.{others[0]}\nfrom .{others[1]} import __name__ as n\n"
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text + "print(__file__.partition('pkg/')[2])\n")
    command = "import pkg." + ", pkg.".join(sorted(names))
    done = subprocess.run([sys.executable, "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True)
    loaded = [f"pkg/{line}" for line in done.stdout.split()]
    assert len(loaded) == 13 and import_order(files) == loaded


def test_relative_imports_are_read_from_the_package_of_the_file():
    others = ("pkg/__init__.py", "pkg/base.py", "pkg/sub/__init__.py", "pkg/sub/a.py", "pkg/sub/b.py")
    assert imports_of("pkg/sub/a.py", "from .b import f\n", *others) == ["pkg/sub/b.py"]
    assert imports_of("pkg/sub/a.py", "from . import b, base\n", *others) == ["pkg/sub/b.py", "pkg/sub/__init__.py"]
    assert imports_of("pkg/sub/a.py", "from ..base import f\n", *others) == ["pkg/base.py"]
    assert imports_of("pkg/sub/a.py", "from .. import base\n", *others) == ["pkg/base.py"]
    assert imports_of("pkg/sub/__init__.py", "from .a import f\nfrom . import b\n", *others) == [
        "pkg/sub/a.py",
        "pkg/sub/b.py",
    ]
    assert imports_of("pkg/sub/a.py", "from .... import os\nfrom ...os import x\n", *others) == []


def test_a_name_stands_for_the_nearest_module_above_it():
    others = ("pkg/__init__.py", "pkg/graph.py", "pkg/alg/__init__.py")
    assert imports_of("x.py", "from pkg.graph import Graph\n", *others) == ["pkg/graph.py"]
    assert imports_of("x.py", "import pkg.graph as g\n", *others) == ["pkg/graph.py"]
    assert imports_of("x.py", "import pkg\n", *others) == ["pkg/__init__.py"]
    assert imports_of("x.py", "from pkg.alg import *\n", *others) == ["pkg/alg/__init__.py"]
    assert imports_of("x.py", "from pkg import graph, VERSION\n", *others) == ["pkg/graph.py", "pkg/__init__.py"]
    assert imports_of("x.py", "import os, numpy.linalg, pkgs\nfrom json import dumps\n", *others) == []


def test_imports_count_wherever_they_stand_once_and_in_the_order_of_their_lines():
    text = "def f():\n    import c\nif True:\n    import b\nimport a, c\nimport x\n'\\d'\n"
    assert imports_of("x.py", text, "a.py", "b.py", "c.py") == ["c.py", "b.py", "a.py"]


def test_a_chain_of_imports_may_be_longer_than_pythons_stack():
    files = {f"m{i:04}.py": f"import m{i + 1:04}\n" for i in range(3000)}
    assert import_order(files) == sorted(files, reverse=True)


def test_the_text_holds_every_file_whole_below_its_path():
    files = {"b.py": "import a\nx = '''\n# a.py\n'''", "a.py": "y = 1\n"}
    text = repository_text(files)
    assert text == "# a.py\ny = 1\n# b.py\nimport a\nx = '''\n# a.py\n'''\n"
    ast.parse(text)


def test_no_files_are_no_text():
    assert repository_text({}) == "" and import_order({}) == []


def test_a_real_repository_keeps_every_file_and_nine_of_ten_imports_in_order():
    package = Path(importlib.util.find_spec("networkx").origin).parent
    paths = [path for path in package.rglob("*.py") if "tests" not in path.parts]
    files = {path.relative_to(package.parent).as_posix(): path.read_text(encoding="utf-8") for path in paths}
    order = import_order(files)
    assert sorted(order) == sorted(files)
    modules, place = {module_name(path): path for path in files}, {path: n for n, path in enumerate(order)}
    edges = [(one, other) for one in files for other in imported_files(one, files[one], modules)]
    edges = [edge for edge in edges if edge[1] != "networkx/__init__.py"]  # imports all, and all import it
    in_order = sum(place[other] < place[one] for one, other in edges)
    assert len(edges) > 100 and in_order > 0.9 * len(edges)  # of the order of paths: a quarter
