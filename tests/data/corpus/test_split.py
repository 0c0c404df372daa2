from collections import Counter

from data.corpus.split import of_one_module, split_files

PATHS = [f"pkg/m{i}.py" for i in range(40)]
SHARES = {"test_share": 0.2, "validation_share": 0.05}


def test_the_shares_are_of_files():
    split = split_files(PATHS, [], seed=0, **SHARES)
    assert Counter(split.values()) == {"train": 30, "test": 8, "validation": 2}
    assert set(split) == set(PATHS)


def test_the_order_of_the_files_does_not_matter_but_the_seed_does():
    split = split_files(PATHS, [], seed=0, **SHARES)
    assert split_files(PATHS[::-1], [], seed=0, **SHARES) == split
    assert split_files(PATHS, [], seed=1, **SHARES) != split


def test_alike_files_are_never_parted_even_through_a_third():
    alike = [(PATHS[i], PATHS[i + 1]) for i in range(0, 8)] + [(PATHS[20], PATHS[30]), (PATHS[30], PATHS[25])]
    for seed in range(20):
        split = split_files(PATHS, alike, seed=seed, **SHARES)
        assert len({split[PATHS[i]] for i in range(9)}) == 1
        assert len({split[PATHS[i]] for i in (20, 25, 30)}) == 1
        assert set(split.values()) == {"train", "test", "validation"}


def test_files_alike_to_a_dropped_file_are_not_parted():
    alike = [("dropped.py", PATHS[3]), (PATHS[9], "dropped.py")]
    for seed in range(20):
        split = split_files(PATHS, alike, seed=seed, **SHARES)
        assert split[PATHS[3]] == split[PATHS[9]] and set(split) == set(PATHS)


def test_a_group_larger_than_the_room_left_stays_in_train():
    alike = [(PATHS[0], path) for path in PATHS[1:20]]
    assert {split_files(PATHS, alike, seed=seed, **SHARES)[PATHS[0]] for seed in range(5)} == {"train"}


def test_a_module_is_a_folder_without_those_below_it():
    paths = ["top.py", "a/x.py", "a/y.py", "a/b/z.py", "a/b/w.py", "a/q.py"]
    assert of_one_module(paths) == [("a/b/w.py", "a/b/z.py"), ("a/q.py", "a/x.py"), ("a/q.py", "a/y.py")]
