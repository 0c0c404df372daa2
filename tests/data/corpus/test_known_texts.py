from data.corpus.known_texts import KnownTexts


def test_a_run_of_words_is_found_by_its_owner():
    known = KnownTexts.of([("a", "one two three four"), ("b", "two three four five"), ("c", "one")], 3)
    assert known.found_in("x, Two (three) four; y") == "a"
    assert known.found_in("three four five") == "b"
    assert known.found_in("two four three") is None and known.found_in("one") is None
    assert KnownTexts.of([], 3).found_in("one two three") is None
