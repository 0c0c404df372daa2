from __future__ import annotations

import pytest

from eval.rate.votes import Votes, items_of


def rated_result(name, count=8):
    """A result of eval.instruct: its greedy answers, one that every result shares, and a sampled one."""
    rows = [{"id": f"t{i}", "sample": "greedy", "output": f"<b>{name}</b> on {i}"} for i in range(count)]
    return {"results": [*rows, {"id": "same", "sample": "greedy", "output": "x"}, {**rows[0], "sample": 0}]}


@pytest.fixture
def result():
    return rated_result


@pytest.fixture
def items():
    prompts = {f"t{i}": f"Do {i}.\n\ndef f():\n" for i in range(8)}
    return items_of(rated_result("before"), rated_result("after"), prompts)[0]


@pytest.fixture
def header():
    return {"votes_on": {"a_sha256": "1", "b_sha256": "2"}}


@pytest.fixture
def votes(tmp_path, header):
    return Votes.open(tmp_path / "votes.jsonl", header)
