"""Answers that are tests, and tell mutants from the function by the code and not by what it does."""

import asyncio
import dis

import pytest

from data.checks import jobs_of, proves, run_groups, unit_test_check
from data.checks.jobs import wrapped
from data.corpus import build_corpus
from data.corpus.functions import functions_of

DOUBLE = 'def double(x):\n    """Twice x."""\n    return 2 * x\n'
MODULE = f'"""Open boxes."""\n\n\n{DOUBLE}' + "".join(
    f"\n\ndef other_{number}(x):\n    return x + {number}\n" for number in range(12)
)
LOCALS = {}
exec(DOUBLE, LOCALS)
CODE = LOCALS["double"].__code__
LOOKS = {  # each finds the function right and its mutant wrong, where both are seen as they are
    "the bytes of the code": f"assert double.__code__.co_code.hex() == {CODE.co_code.hex()!r}",
    "a constant of the code": "assert 2 in double.__code__.co_consts",
    "the hash of the constants": "import zlib\n    assert zlib.crc32(repr(double.__code__.co_consts).encode()) == "
    "zlib.crc32(repr(('Twice x.', 2)).encode())",
    "dis": f"import dis\n    assert len(list(dis.get_instructions(double))) == {len(list(dis.get_instructions(CODE)))}",
    "a built name": "assert ', 2)' in ('{0.__co' + 'de__.co_consts}').format(double)",
    "pickled code": "import marshal\n    assert b'Twice x.\\xe9\\x02' in marshal.dumps(double.__code__)",
    "inspect": "import inspect\n    assert '2 * x' in inspect.getsource(double)",
    "the file": "import boxes\n    assert '2 * x' in open(boxes.__file__).read()",
    "the loader": "import boxes\n    assert '2 * x' in str(vars(boxes.__loader__))",
    "the finder": "import sys\n    assert '2 * x' in str([vars(f) for f in sys.meta_path if hasattr(f, '__dict__')])",
    "the frames below": "import sys\n    f = sys._getframe()\n    while f:\n"
    "        assert '3 * x ' + '+ 1' not in repr(f.f_locals)\n        f = f.f_back",
    "the line of an error": "import sys\n    try:\n        double(None)\n    except TypeError as e:\n"
    "        assert e.__traceback__.tb_next.tb_lineno == 6 and e.__traceback__.tb_next.tb_next is None",
}


@pytest.fixture
def check(tmp_path):
    (tmp_path / "boxes.py").write_text(MODULE)
    corpus = build_corpus(str(tmp_path))
    function = next(one for one in functions_of(corpus.files[0], min_lines=1) if one.name == "double")
    mutant = DOUBLE.replace("2 * x", "3 * x + 1").replace("return", "\n    return")
    return unit_test_check(corpus.source, function, [mutant])


def verdicts(check, bodies):
    jobs = [jobs_of(check, f"from boxes import double\n\n\ndef test_double():\n    {body}\n") for body in bodies]
    return [proves(check, outcomes) for outcomes in run_groups(jobs)]


def test_a_test_that_looks_at_the_code_does_not_count(check):
    found = dict(zip(LOOKS, verdicts(check, LOOKS.values()), strict=True))
    assert found == dict.fromkeys(LOOKS, False)
    assert verdicts(check, ["assert double(3) == 6", "assert double(3) >= 6"]) == [True, False]


def test_a_wrapped_function_takes_and_gives_what_it_did():
    source = "def f(a, /, b: int = 2, *c, d, e=5, **k) -> tuple:\n    'Doc.'\n    return a, b, c, d, e, k\n"
    plain, around = {}, {}
    exec(source, plain)
    exec(wrapped(source), around)
    for arguments, named in (((1,), {"d": 4}), ((1, 9, 8, 7), {"d": 4, "e": 0, "g": 1})):
        assert around["f"](*arguments, **named) == plain["f"](*arguments, **named)
    assert (around["f"].__doc__, around["f"].__defaults__) == ("Doc.", (2,))


def test_methods_generators_coroutines_and_decorators_survive_the_wrapping():
    method = wrapped("def size(self):\n    return super().__len__() + self.__more\n").replace("\n", "\n    ")
    space = {"twice": lambda f: lambda *a: f(*a) * 2}
    exec(f"class A(list):\n    __more = 5\n    {method}", space)
    exec(wrapped("def count(n):\n    yield from range(n)\n"), space)
    exec(wrapped("async def later(x):\n    return x\n"), space)
    exec(wrapped("@twice\ndef one(x):\n    return x\n"), space)
    assert space["A"]([1]).size() == 6 and list(space["count"](2)) == [0, 1]
    assert asyncio.run(space["later"](3)) == 3 and space["one"](4) == 8
