import pytest

from data.checks.hallucination import Answer, check_names
from data.checks.linting import lint_style


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "pack"
    folder.mkdir()
    (folder / "__init__.py").write_text("from pack.inner import double\n")
    (folder / "inner.py").write_text(
        "import math\n\n\nclass Box:\n    def open_lid(self):\n        return self\n\n\ndef double(x):\n    return x\n"
    )
    return str(tmp_path)


def _check(package, *codes, module=None):
    issues = lint_style(list(codes))
    return check_names(
        [
            Answer(code=code, issues=tuple(found), package=package, module=module, path="pack/inner.py")
            for code, found in zip(codes, issues, strict=True)
        ]
    )


def test_what_exists_is_not_held_for_invented(package):
    (report,) = _check(
        package,
        "import os.path\nfrom collections import abc\nimport pack.inner as inner\nfrom pack import *\n"
        "def test_f():\n    assert inner.double(1) == len([1]) and os.path.join and abc.Mapping\n"
        "    assert inner.Box.open_lid\n",
    )
    assert report.hallucinated == () and report.unknown == 0 and report.checked >= 6


def test_modules_names_and_attributes_that_do_not_exist_are_found(package):
    (report,) = _check(
        package,
        "import no_such_package\nfrom pack import no_such_name\nimport pack.no_such_module\n"
        "import pack.inner as inner\n"
        "def test_f():\n    assert inner.tripel(1) and inner.Box.close_lid and undefined_thing\n",
    )
    assert set(report.hallucinated) == {
        "no_such_package",
        "pack.no_such_name",
        "pack.no_such_module",
        "pack.inner.tripel",
        "pack.inner.Box.close_lid",
        "undefined_thing",
    }


def test_inside_a_module_its_own_names_are_known_and_others_are_not(package):
    good, bad = _check(
        package,
        "def double(x):\n    return math.floor(x) + Box().open_lid()\n",
        "def double(x):\n    return math.flor(x) + Bax() + Box().shut_lid()\n",
        module="pack.inner",
    )
    assert good.hallucinated == ()
    assert set(bad.hallucinated) == {"math.flor", "Bax", "shut_lid"}
    assert bad.kinds == {"name": (1, 4), "attribute": (2, 2), "call": (0, 1)}  # one of Bax, Box, math, x


def test_names_that_stand_in_the_source_alone_are_known(tmp_path):
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "inner.py").write_text(
        "import typing\nif typing.TYPE_CHECKING:\n    import typing as te\n    from pack.other import Tree\n"
        "class Box:\n    class Lid:\n        pass\n\n    def lid(self):\n        inside = 1\n"
    )
    good, bad = _check(
        str(tmp_path),
        "def lid(self, how: 'te.Literal[\"wide\", \"shut\"]', tree: 'Tree') -> Lid:\n    return how\n",
        "def lid(self, tree: 'Trie') -> inside:\n    return tree\n",
        module="pack.inner",
    )
    assert good.hallucinated == ()
    assert set(bad.hallucinated) == {"Trie", "inside"}


def test_a_local_that_hides_a_module_is_not_looked_up(package):
    (report,) = _check(package, "import math\n\n\ndef f(g):\n    math = g\n    return math.nodes\n")
    assert report.hallucinated == ()


def test_relative_imports_are_resolved_from_the_module(package):
    (report,) = _check(
        package, "def f():\n    from .inner import double, doubel\n    return double\n", module="pack.inner"
    )
    assert report.hallucinated == ("doubel",)


def test_what_an_import_does_stays_in_the_sandbox(package, tmp_path):
    (tmp_path / "pack" / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nimport os\nos._exit(0)\n")
    (report,) = _check(package, "import pack.evil\n")
    assert not (tmp_path / "ran").exists()
    assert report.hallucinated == () and report.unknown + report.checked == 1


def test_backticked_words_of_prose_must_stand_in_the_prompt_or_the_package(package):
    def look(prose):
        return check_names([Answer(prose=prose, prompt="def f(G): ...", package=package, path="pack/inner.py")])[0]

    assert look("It takes `G` and calls `double()`, a ``Box`` and `None`.").hallucinated == ()
    assert look("It takes `H` and calls `Box.shut_lid`.").hallucinated == ("Box.shut_lid", "H")
    assert look("No names here.").checked == 0


def test_prose_about_an_unknown_package_is_not_called_invented():
    (report,) = check_names([Answer(prose="Calls `frobnicate`.", path="no_such_place/a.py")])
    assert (report.checked, report.hallucinated, report.unknown) == (0, (), 1)


def test_keywords_and_numbers_of_arguments_that_a_function_does_not_take_are_found(package):
    head = "import json\nfrom pack.inner import Box, double\n\n\ndef f(args):\n    "
    good, bad = _check(
        package,
        head + "return double(1), double(x=1), double(*args), double(**args), Box(), json.dumps(args, indent=1)\n",
        head + "return double(), double(1, 2), double(1, y=2), double(*args, z=1), Box(3), json.loads(args, 1)\n",
    )
    assert good.hallucinated == () and good.kinds["call"] == (0, 6)
    assert {name.removeprefix("pack.inner.") for name in bad.hallucinated} == {
        "double()", "double(_, _)", "double(_, y=)", "double(_, z=)", "Box(_)", "json.loads(_, _)",
    }  # fmt: skip
    assert bad.kinds["call"] == (6, 6)


def test_a_wrapper_that_takes_anything_is_judged_by_what_it_wraps():
    head = "import networkx as nx\n\n\ndef f(G):\n    "
    codes = [
        head + "return nx.clustering(G, weight='w', backend=None)\n",
        head + "return nx.clustering(G, wheight=1)\n",
    ]
    good, bad = check_names([Answer(code=code) for code in codes])
    assert good.hallucinated == () and bad.hallucinated == ("networkx.clustering(_, wheight=)",)


def test_an_attribute_counts_only_where_the_repository_alone_can_have_given_the_object(package):
    own, others = _check(
        package,
        "import pack\n\n\ndef f(g):\n    g.mine = g.lower()\n    return g.mine, g.open_lid, g.shut_lid\n",
        "import decimal\n\n\ndef f(g):\n    return g.quantize(2)\n",
    )
    assert own.hallucinated == ("shut_lid",) and own.kinds["attribute"] == (1, 4)
    assert others.hallucinated == () and others.unknown == 1


def test_a_function_out_of_a_module_that_cannot_be_asked_is_held_against_the_words_of_its_package():
    code = "def f(x):\n    return groups(x), no_such_helper(x)\n"
    (report,) = check_names(
        [Answer(code=code, issues=tuple(lint_style([code])[0]), path="networkx/utils/union_find.py")]
    )
    assert report.hallucinated == ("no_such_helper",)


def test_where_not_even_the_package_is_found_what_was_shown_exists_and_other_names_are_unknown():
    code = "def f(x: Tensor):\n    return groups(x), helper(x)\n"
    issues = tuple(lint_style([code])[0])
    (report,) = check_names(
        [Answer(code=code, issues=issues, prompt="def f(x: Tensor):\n    groups(x)", path="nowhere_installed/m.py")]
    )
    assert (report.hallucinated, report.unknown, report.kinds["name"]) == ((), 1, (0, 3))  # x, Tensor, groups; helper
    (alone,) = check_names([Answer(code=code, issues=issues, prompt="Tensor")])  # a program is all there is
    assert alone.hallucinated == ("Tensor", "groups", "helper")


def test_identifiers_in_prose_need_no_backticks(package):
    text = "It calls `double`, then open_lid and shut_lid, then frob() and a well-known trick (see e.g. x/y_z)."
    (report,) = check_names([Answer(prose=text, package=package, path="pack/inner.py")])
    assert report.hallucinated == ("frob", "shut_lid") and report.kinds == {"prose": (2, 4)}
