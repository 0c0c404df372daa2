from __future__ import annotations

import sys
from types import SimpleNamespace

from common.console import progress


def test_a_progress_bar_shows_on_a_terminal_or_in_a_notebook(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert progress([1], what="counting").disable  # the tests have no terminal
    shell = SimpleNamespace()  # IPython on a terminal
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert progress([1], what="counting").disable
    shell.kernel = "a notebook's"
    assert not progress([1], what="counting").disable
    assert progress([1], what="counting", hidden=True).disable
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert progress([1], what="counting").disable
