import pytest

from common.console import UserError
from data.checks.check import doctest_check, patched_module, suite_base


def test_a_patch_with_the_function_itself_is_the_module_byte_for_byte(corpus, functions, boxes_module):
    assert set(functions) == {"double", "Box.size"}
    for function in functions.values():
        check = doctest_check(corpus.source, function)
        assert patched_module(check, function.source) == boxes_module
    changed = patched_module(check, function.source.replace('len("abc")', "4"))
    assert changed == boxes_module.replace('        return len("abc")', "        return 4")


def test_a_module_that_has_changed_since_is_refused(corpus, functions):
    check = {**doctest_check(corpus.source, functions["double"]), "sha256": "0" * 64}
    with pytest.raises(UserError, match="has changed since"):
        patched_module(check, "def double(x): return 0")


def test_tests_are_named_from_the_project_around_src(tmp_path, corpus):
    (tmp_path / "project" / "src").mkdir(parents=True)
    assert suite_base(str(tmp_path / "project")) == tmp_path / "project"
    assert str(suite_base(corpus.source)) == corpus.source
