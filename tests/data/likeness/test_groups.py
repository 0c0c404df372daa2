from __future__ import annotations

from data.likeness.groups import Groups, groups_of_codes, groups_of_queries

WALK = '''def walk(graph, node):
    """Visit."""
    return graph.search(node, limit=3)
'''


def together(groups) -> list[list[int]]:
    return [[i for i, group in enumerate(groups) if group == one] for one in sorted(set(groups.tolist()))]


def test_a_wrapper_of_the_same_body_under_other_names_is_alike():
    codes = [
        WALK,
        "def roam(net, start):\n    # elsewhere\n    return net.search(start, limit=3)",
        "def walk(graph, node):\n    return graph.search(node, limit=4)",  # another program
        "def walk(graph, node):\n    return graph.find(node, limit=3)",
    ]
    assert together(groups_of_codes(codes)) == [[0, 1], [2], [3]]


def test_near_duplicates_are_alike_also_through_a_third_and_in_other_languages():
    lines = [f"  total += weights[{i}] * values[{i}];" for i in range(20)]
    codes = ["\n".join(lines[:17]), "\n".join(lines), "\n".join(lines[3:]), "let x = 1;"]
    assert together(groups_of_codes(codes)) == [[0, 1, 2], [3]]


def test_queries_are_alike_but_for_case_layout_and_a_word_in_many():
    long = "compute the shortest path from one node to all the other nodes of a weighted graph by priority"
    queries = ["Find  the path", "find the path", "find the node", long, f"{long} queue"]
    assert together(groups_of_queries(queries)) == [[0, 1], [2], [3, 4]]


def test_code_that_python_cannot_take_apart_stays_as_it_is():
    deep = "x = " + "+".join("1" * 3000)
    assert together(groups_of_codes(["not python (", deep, "not python ("])) == [[0, 2], [1]]


def test_what_is_joined_through_others_has_one_first():
    groups = Groups()
    for pair in ((5, 4), (3, 2), (4, 3), (9, 8)):
        groups.join(*pair)
    assert [groups.first(i) for i in (5, 4, 3, 2)] == [2] * 4
    assert (groups.first(9), groups.first(1)) == (8, 1)
