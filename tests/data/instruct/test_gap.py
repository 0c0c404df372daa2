import ast
import random

from data.instruct.gap import GAP, MOST_LINES, cut_gap, fill_gap

SOURCE = '''def f(values, *, start=0):
    """Doc."""
    total = start
    for value in values:
        if value > 1:
            total += value  # more
        elif value < 0:
            return None
        else:
            pass
    text = """a
        b"""
    if total: return total
    first = 1; second = [
        2]
    @staticmethod
    def inner():
        return text
    return inner()
'''


def cuts(source):
    return {cut_gap(source, random.Random(seed)) for seed in range(300)}


def test_what_was_taken_out_fits_back_byte_for_byte():
    found = cuts(SOURCE)
    assert len(found) > 8
    for given, missing in found:
        assert given.count(GAP) == 1 and GAP not in missing
        assert fill_gap(given, missing) == SOURCE
        assert 1 <= missing.count("\n") + 1 <= MOST_LINES
        assert missing.lstrip().split(" ")[0] not in ("elif", "else:", "def", '"""Doc."""')


def test_gaps_are_whole_statements_of_any_block():
    found = cuts(SOURCE)
    for given, _ in found:
        ast.parse(fill_gap(given, "pass"))
    indents = {len(missing) - len(missing.lstrip()) for _, missing in found}
    assert indents == {4, 8, 12}


def test_an_answer_is_moved_to_the_gaps_depth():
    given, _ = next(cut for cut in cuts(SOURCE) if cut[1].startswith("            total"))
    assert "            a = 1\n            if a:\n                b = 2\n" in fill_gap(
        given, "a = 1\nif a:\n    b = 2\n"
    )


def test_a_function_of_one_statement_has_nothing_to_take_out():
    assert cut_gap("def f(x):\n    return x", random.Random(0)) is None
    assert cut_gap(f"def f(x):\n    y = '{GAP}'\n    return x", random.Random(0)) is None
