"""A small repository to make pairs from: documented functions with examples, and tests of its own."""

from pathlib import Path

import pytest

from data.corpus import build_corpus
from data.instruct import build_instruction_pairs

FUNCTION = '''
def {name}(values, step={step}):
    """{verb} the {noun} of values that are taken {step} at a time.

    The first value always counts. An empty list has no {noun} and gives zero.

    Parameters
    ----------
    values : list of int
        Numbers.
    step : int
        Distance of two values that count.

    Returns
    -------
    int
        The {noun}.

    Examples
    --------
    >>> {name}([1, 2, 3, 4])
    {want}
    """
    total = {step}
    taken = [value for value in values[::step]]
    for value in taken:
        total = total + value * {step}
    label = f"{noun} {{total}}"
    return total if label else None
'''


def write_repository(folder: Path, modules: int = 8) -> Path:
    """`modules` modules of two functions each under folder/pkg, and their tests under folder/tests."""
    (folder / "pkg").mkdir(parents=True)
    (folder / "tests").mkdir()
    (folder / "pkg" / "__init__.py").write_text("")
    for module in range(modules):
        parts = [f'"""Arithmetic of the kind {module} on lists."""\n']
        tests = [f"from pkg.m{module} import sum_{module}_0\n\n"]
        for number, (noun, verb) in enumerate((("sum", "Computes"), ("mass", "Returns"))):
            name, step = f"{noun}_{module}_{number}", module + 1
            want = step + step * sum([1, 2, 3, 4][::step])
            padding = "".join(f"    {noun}{module}_{line} = {line} * {module}\n" for line in range(module + 2))
            text = FUNCTION.format(name=name, step=step, noun=f"{noun} {module}", verb=verb, want=want)
            parts.append(text.replace("    total =", padding + "    total =", 1))
        tests.append(f"def test_sum_{module}_0():\n    values = [5]\n    # one value\n")
        tests.append(f"    assert sum_{module}_0(values) == {6 * (module + 1)}\n")
        (folder / "pkg" / f"m{module}.py").write_text("\n".join(parts))
        (folder / "tests" / f"test_m{module}.py").write_text("".join(tests))
    return folder


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory):
    """Eight files of two documented functions each: five to train on, one to validate, two to test."""
    return build_corpus(str(write_repository(tmp_path_factory.mktemp("small") / "code")))


@pytest.fixture(scope="session")
def small_pairs(small_corpus):
    return build_instruction_pairs(small_corpus, count=18, test_count=6, validation_count=0)
