from __future__ import annotations

import math
from collections import Counter

import pytest

from data.contrastive import PairTable, plan_batches


class Letters:
    """A token for each letter; a query begins with 0."""

    def tokenize(self, texts, kind):
        return [[0] * (kind == "query") + [ord(letter) for letter in text] for text in texts]


def pair(query, code, *negatives, **more):
    return {"query": query, "code": code, "negatives": list(negatives), **more}


def test_own_codes_come_first_and_hard_negatives_of_all_after_them():
    table = PairTable([pair("a", "x"), pair("b", "y", "u", "v", "w"), pair("c", "z", "u")], Letters(), negatives=2)
    batch = table.batch([1, 2])
    assert batch.queries == [[0, ord("b")], [0, ord("c")]]
    assert "".join(chr(*row) for row in batch.documents) == "yzuvu"
    assert batch.tokens == 4 + 5 and table.lengths() == [3, 5, 4]
    assert len(PairTable([pair("b", "y", "u")] * 2, Letters(), negatives=0).batch([0, 1]).documents) == 2


def test_the_largest_batch_of_a_plan_is_found_by_its_tokens():
    table = PairTable(
        [pair("a", "x"), pair("b", "y", "long one"), pair("c", "z"), pair("d", "w")], Letters(), negatives=1
    )
    assert table.largest([(0, [0, 2, 3]), (0, [0, 1]), (1, [2, 3])]).tokens == 3 + 3 + 8


def test_equally_good_codes_are_nobodys_negative():
    rows = [pair("a", "x"), pair("b", "y", "X = 2", "x"), pair("a", "z"), pair("c", "x")]
    same = PairTable(rows, Letters(), negatives=2).batch([0, 1, 2, 3]).same
    expected = [
        [1, 0, 1, 1, 0, 1],  # the code of pair 2 as it asks the same, that of pair 3 and a hard negative as equal
        [0, 1, 0, 0, 0, 0],
        [1, 0, 1, 0, 0, 0],  # but what another pair with this query has as its hard negative is one here, too
        [1, 0, 0, 1, 0, 1],
    ]
    assert same.int().tolist() == expected


def test_a_hard_negative_that_is_the_own_code_under_another_name_is_none():
    own, copy = "def first(a):\n    return a.go(1)", "def second(b):\n    return b.go(1)"
    same = PairTable([pair("q", own, copy), pair("r", "def g(): pass")], Letters(), negatives=1).batch([0, 1]).same
    assert same.int().tolist() == [[1, 0, 1], [0, 1, 0]]


def test_given_scores_stand_in_the_columns_of_their_codes():
    rows = [pair("a", "x", "u", "v", scores=[3.0, 2.0, 1.0]), pair("b", "y", "w"), pair("c", "z", "t", scores=[5, 4])]
    teacher = PairTable(rows, Letters(), negatives=1).batch([2, 1, 0]).teacher.tolist()
    none = -math.inf
    assert teacher == [[5, none, none, 4, none, none], [none] * 6, [none, none, 3, none, none, 2]]


LENGTHS = [int(10 * 1.05**i) for i in range(100)]  # from 10 to 1252


def plan(**options):
    return plan_batches(**({"lengths": LENGTHS, "pairs_per_step": 16, "epochs": 2, "seed": 0} | options))


def test_each_epoch_visits_every_pair_once_in_an_order_of_its_own():
    steps = plan()
    for epoch in (0, 1):
        assert sorted(i for e, chosen in steps if e == epoch for i in chosen) == list(range(100))
    assert plan(epochs=1) == steps[:7] != [(0, chosen) for _, chosen in steps[7:]]
    assert plan(seed=1) != steps
    assert sum(len(chosen) for _, chosen in plan(epochs=0.5)) == 50 and plan(epochs=0) == []


def test_steps_are_even_in_size_and_cost():
    costs = [sum(LENGTHS[i] for i in chosen) for _, chosen in plan()]
    assert {len(chosen) for _, chosen in plan()} == {14, 15}
    assert max(costs) / min(costs) < 1.8  # drawn without regard to length: 2.1 to 4.9


def test_any_two_pairs_meet_about_as_often_as_by_chance():
    met = Counter()
    for _, chosen in plan(epochs=400):
        met.update((i, j) for i in chosen for j in chosen if i < j)
    times = [met[j, i] for i in range(100) for j in range(i)]
    by_chance = 400 / 7
    assert min(times) > 0.4 * by_chance and max(times) < 2 * by_chance


def test_the_halves_of_a_step_are_even_too():
    for _, chosen in plan(lengths=list(range(64)), pairs_per_step=64, epochs=3):
        assert sorted(chosen) == list(range(64)) and abs(sum(chosen[:32]) - sum(chosen[32:])) < 0.5 * sum(chosen)


@pytest.mark.parametrize(("pairs", "steps"), [(3, [2]), (1, []), (4, [2, 2])])
def test_a_pair_alone_has_no_negative(pairs, steps):
    assert [len(chosen) for _, chosen in plan(lengths=[5] * pairs, pairs_per_step=2, epochs=1)] == steps
