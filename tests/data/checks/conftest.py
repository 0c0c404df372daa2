import pytest

from data.corpus import build_corpus
from data.corpus.functions import functions_of

MODULE = '''"""A module."""


def double(x):
    """Twice.

    >>> double(2)
    4
    >>> double(None)
    Traceback (most recent call last):
    TypeError: unsupported operand type(s) for *: 'NoneType' and 'int'
    """
    return x * 2


class Box:
    @property
    def size(self):
        """Three.

        >>> Box().size
        3
        """
        three = """
            kept"""
        return len("abc")


'''  # fmt: skip
MODULE += "".join(f"CONSTANT_{i} = {i}\n" for i in range(12))
TESTS = """from boxes import Box, double
import pytest


@pytest.mark.parametrize("x", [1, "a"])
def test_double(x):
    assert double(x) == x + x


def test_box():
    assert Box().size == 3
"""


@pytest.fixture
def boxes_module():
    return MODULE


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "boxes.py").write_text(MODULE)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_boxes.py").write_text(TESTS)
    return build_corpus(str(tmp_path))


@pytest.fixture
def functions(corpus):
    return {one.qualname: one for one in functions_of(corpus.files[0], min_lines=1)}
