from data.card import write_data_card
from data.pairs import build_text_code_pairs


def test_the_card_counts_what_is_there_and_changes_with_it(small_corpus, small_pairs, tmp_path):
    pairs = build_text_code_pairs(small_corpus)
    text = write_data_card(tmp_path, corpus=small_corpus, instruct=small_pairs, pairs=pairs)
    assert (tmp_path / "data_card.md").read_text() == text
    assert "Kept 8 Python files, rejected 9" in text
    assert "| test file | 8 |" in text and "| too short | 1 |" in text
    assert "| bugfix | 3 | 0 | 1 |" in text
    assert f"| candidates | {16} | {8} |" in text
    assert text.count("\n### ") == 10
    assert small_pairs.train[0]["instruction"] in text
    again = write_data_card(tmp_path, corpus=small_corpus, instruct=small_pairs, pairs=pairs)
    assert again == text
    small_pairs.test[0]["output"] += " "
    try:
        changed = write_data_card(tmp_path, corpus=small_corpus, instruct=small_pairs, pairs=pairs)
    finally:
        small_pairs.test[0]["output"] = small_pairs.test[0]["output"][:-1]
    hashes = [{line for line in one.split("\n") if line.startswith("| instruction pairs, ")} for one in (text, changed)]
    assert [line.split(" |")[0] for line in hashes[1] - hashes[0]] == ["| instruction pairs, test"]


def test_a_card_of_a_corpus_alone_speaks_of_no_pairs(small_corpus, tmp_path):
    text = write_data_card(tmp_path, corpus=small_corpus)
    assert "Instruction pairs" not in text and "Text–code" not in text and "## Hashes" in text
