from __future__ import annotations

import sys
import types

from common.console import progress


def test_a_progress_bar_shows_on_a_terminal_or_in_a_notebook(monkeypatch):
    assert progress([1], what="counting").disable  # the tests have no terminal
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    assert not progress([1], what="counting").disable
    assert progress([1], what="counting", hidden=True).disable
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert progress([1], what="counting").disable
