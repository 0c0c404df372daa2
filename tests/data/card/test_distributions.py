import re

from data.card.distributions import MOST, TEXT_WIDTH, Bars, by_size, most_common


def test_bars_are_as_long_as_their_counts():
    bars = Bars("kinds", {"a": 400, "b": 100, "c": 1, "none": 0})
    rows = bars.as_markdown().split("\n")[2:]
    assert [row.count("█") for row in rows] == [TEXT_WIDTH, round(TEXT_WIDTH / 4), 1, 0]
    widths = [float(width) for width in re.findall(r'<rect [^>]*width="([\d.]+)"', bars.as_html())]
    assert widths[0] == 4 * widths[1] and widths[2] > 0 and widths[3] == 0


def test_names_are_escaped_on_the_page_and_in_the_table():
    bars = Bars("<i>", {"a|b<script>": 1})
    assert "<script" not in bars.as_html() and "<i>" not in bars.as_html()
    assert "a\\|b" in bars.as_markdown()


def test_the_most_frequent_come_first_and_the_rest_is_one_bar():
    names = [str(n) for n in range(MOST + 3) for _ in range(n + 1)]
    counts = most_common("x", names).counts
    assert list(counts)[:2] == [str(MOST + 2), str(MOST + 1)] and list(counts)[-1] == "3 others"
    assert sum(counts.values()) == len(names) and most_common("x", []) is None


def test_sizes_fall_into_ranges_without_gaps():
    assert by_size("x", [0, 1, 2, 3, 9, 1024]).counts == {
        "0": 1, "1–1": 1, "2–3": 2, "4–7": 0, "8–15": 1, "16–31": 0, "32–63": 0, "64–127": 0, "128–255": 0,
        "256–511": 0, "512–1,023": 0, "1,024–2,047": 1,
    }  # fmt: skip
    assert by_size("x", []) is None
