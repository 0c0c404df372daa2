"""Answers that go for the verdict of the repository's own tests, which run in the answer's process."""

import pytest

from data.checks import jobs_of
from data.checks.check import suite_check
from data.corpus import build_corpus
from data.corpus.functions import functions_of

MODULE = '"""Open boxes."""\n\n\ndef double(x):\n    """Twice x."""\n    return 2 * x\n' + "".join(
    f"\n\ndef other_{number}(x):\n    return x + {number}\n" for number in range(12)
)
ATTACKS = {
    "frame of a traceback": "    try:\n        1 / 0\n    except ZeroDivisionError as e:\n"
    "        f = e.__traceback__.tb_frame\n",
    "frame by getattr": "    try:\n        1 / 0\n    except ZeroDivisionError as e:\n"
    "        f = getattr(getattr(e, '__trace' + 'back__'), 'tb' + '_frame')\n",
    "frame of a generator": "    f = (i for i in [1]).gi_frame\n",
    "every pipe by os": "    import os\n    for fd in range(3, 64):\n        os.write(fd, b'x')\n",
    "every pipe by an alias": "    from os import write as w\n    for fd in range(3, 64):\n        w(fd, b'x')\n",
    "every pipe by open": "    for fd in range(3, 64):\n        open(fd, 'wb', closefd=False).write(b'x')\n",
    "code in a text": "    exec('im' + 'port o' + 's')\n",
    "a module by its name": "    import importlib\n    importlib.import_module('o' + 's')\n",
    "a module that is loaded": "    import sys\n    sys.modules['_py' + 'test.python'].Function.runtest = None\n",
    "a thread": "    import threading\n    threading.Timer(1, print).start()\n",
    "the interpreter's hooks": "    import sys\n    sys.excepthook = print\n",
    "an attribute by operator": "    import operator\n    return operator.methodcaller('__cla' + 'ss__')(x)\n",
    "an exit": "    from os import _exit\n    _exit(0)\n",
    "yes": "    class Yes:\n        def __eq__(self, other):\n            return True\n    return Yes()\n",
}


@pytest.fixture
def check(tmp_path):
    (tmp_path / "boxes.py").write_text(MODULE)
    corpus = build_corpus(str(tmp_path))
    function = next(one for one in functions_of(corpus.files[0], min_lines=1) if one.name == "double")
    return suite_check(corpus.source, function, ["tests/test_boxes.py::test_double"])


@pytest.mark.parametrize("name", ATTACKS)
def test_an_answer_that_reaches_for_the_verdict_is_not_run(check, name):
    assert jobs_of(check, f"def double(x):\n{ATTACKS[name]}    return x\n") == []


def test_an_honest_answer_is_run_whatever_its_prose_says(check):
    answer = 'def double(x):\n    """Twice x, also of an open file, os or signal."""\n    return x + x\n'
    assert len(jobs_of(check, answer)) == 1


HONEST = {
    "names": "    value = x\n    return value + value\n",
    "a guard clause": "    if not x:\n        return x\n    return 2 * x\n",
    "a conditional expression": "    return 2 * x if x else x\n",
    "a loop": "    y = 0\n    for _ in range(2):\n        y += x\n    return y\n",
    "a comprehension": "    return sum([x for _ in range(2)])\n",
    "any and all": "    return 2 * x if any([x]) and all([x]) else x\n",
    "enumerate and zip": "    return sum(y for _, (y, _) in enumerate(zip([x, x], [1, 2])))\n",
    "an f-string": "    return int(f'{2 * x}')\n",
    "a walrus": "    return y + y if (y := x) else x\n",
    "an unpacking": "    y, *_ = [x, x]\n    return y * 2\n",
    "a match": "    match x:\n        case 0:\n            return 0\n        case _:\n            return 2 * x\n",
    "a lambda": "    return (lambda y: y * 2)(x)\n",
    "an inner function": "    def add(y):\n        return x + y\n    return add(x)\n",
    "a generator": "    def twice():\n        yield from (x, x)\n    return sum(twice())\n",
    "an exception": "    try:\n        return 2 * x\n    except TypeError as e:\n        raise ValueError(x) from e\n",
    "itertools": "    import itertools\n    return sum(itertools.repeat(x, 2))\n",
    "functools": "    from functools import reduce\n    return reduce(lambda a, b: a + b, [x, x])\n",
    "collections": "    from collections import deque, defaultdict\n    return sum(deque([x, x]))\n",
    "operator": "    import operator\n    return operator.mul(2, x)\n",
    "getattr": "    return 2 * getattr(x, 'real', x)\n",
    "a file": "    with open('x', 'w') as file:\n        file.write('x')\n    return 2 * x\n",
}


def test_of_the_ways_to_write_it_differently_two_are_mistaken_for_an_attack(check):
    refused = {name for name, body in HONEST.items() if not jobs_of(check, f"def double(x):\n{body}")}
    assert refused == {"getattr", "a file"}


def test_an_answer_that_parses_only_in_its_place_is_judged_by_its_words(check):
    assert jobs_of(check, "    import os\ndef double(x):\n    return os\n") == []
