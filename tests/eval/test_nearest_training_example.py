from eval.nearest_training_example import LINES, pieces_of_files, with_nearest

EXAMPLES = [
    {"id": "walk", "prompt": "walk a tree", "answer": "1", "category": "function"},
    {"id": "path", "prompt": "shortest path of a graph", "answer": "2", "category": "file"},
]


def test_the_likest_example_of_the_same_category_stands_beside_a_failure():
    failures = [
        {"prompt": "paths in graphs", "category": "usage"},  # no example is of it: all may be the nearest
        {"prompt": "paths in graphs", "category": "function"},
    ]
    rows = with_nearest(failures, EXAMPLES)
    assert [row["nearest"]["id"] for row in rows] == ["path", "walk"]
    assert rows[0]["nearest"]["score"] > 0 == rows[1]["nearest"]["score"]
    assert rows[0]["nearest"].keys() == {"id", "prompt", "answer", "score"}
    assert failures == [{key: row[key] for key in ("prompt", "category")} for row in rows]


def test_nothing_stands_there_where_nothing_was_learnt():
    failures = [{"prompt": "x", "category": "y"}]
    assert with_nearest(failures, []) == failures == [{"prompt": "x", "category": "y"}]


def test_a_file_is_cut_into_pieces_each_with_what_comes_after_it():
    lines = [f"x{i}" for i in range(2 * LINES + 1)]
    pieces = pieces_of_files([("a.py", "\n".join(lines)), ("empty.py", "")])
    assert [piece["id"] for piece in pieces] == ["a.py:1", f"a.py:{LINES + 1}", f"a.py:{2 * LINES + 1}"]
    assert pieces[0]["answer"] == pieces[1]["prompt"] and "\n".join(p["prompt"] for p in pieces) == "\n".join(lines)
    assert pieces[2]["answer"] == ""
