"""Answers that go for the verdict of the repository's own tests, which run in the answer's process."""

import pytest

from data.checks import jobs_of, suite_check
from data.corpus import build_corpus
from data.functions import functions_of

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


def test_an_answer_that_parses_only_in_its_place_is_judged_by_its_words(check):
    assert jobs_of(check, "    import os\ndef double(x):\n    return os\n") == []
