"""The parts of a card about text rows: task, prompt, labels, splits, lengths, what was removed."""

from __future__ import annotations

from collections import Counter

from common.markdown import fenced
from data.card.distributions import Bars, by_size, most_common
from data.card.material import TextRows
from data.card.tables import median, table
from data.corpus import SPLITS
from data.text_rows import LONG, PROMPTS, TASKS, labels_of


def text_rows_section(text: TextRows) -> list[str]:
    """The prompt, rows by label and split, lengths, where the splits come from, and what was left out."""
    about, (_, answer) = text.about, TASKS[text.task]
    labels = labels_of(text.all_rows())
    counts = {split: Counter(row[answer] for row in text.rows[split]) for split in SPLITS}
    by_label = [[label, *(f"{counts[split][label]:,}" for split in SPLITS)] for label in labels or ()]
    totals = ["all", *(f"{len(text.rows[split]):,}" for split in SPLITS)]
    lengths = []
    for split in SPLITS:
        for field in (LONG[text.task], answer):
            words = [len(str(row.get(field) or "").split()) for row in text.rows[split]] or [0]
            lengths.append([split, field, median(words), f"{max(words):,}"])

    # what the importer recorded
    drawn = about.get("drawn", [])
    origin = [
        f"{split}: {'drawn from the training rows by the seed' if split in drawn else 'as published'}"
        for split in SPLITS
    ]
    lost = [[f"duplicates removed in {pair}", count] for pair, count in about.get("duplicates", {}).items()]
    lost += [
        [f"rows of {split} beyond the number asked for", count] for split, count in about.get("left_out", {}).items()
    ]
    lost += [[f"rejected: {reason}", count] for reason, count in about.get("rejected", {}).items()]
    several = sum(bool(row.get("references")) for row in text.all_rows())
    return [
        f"Task: {text.task}. Every row is asked by the same prompt, its fields in place of the braces:",
        fenced(PROMPTS[text.task]),
        table([answer if labels else "rows", *SPLITS], [*by_label, totals]),
        table(["split", "field", "median words", "longest"], lengths),
        f"Splits: {'; '.join(origin)}." if about else "",
        f"{several:,} rows have further right answers (references)." if several else "",
        table(["left out", "rows"], lost) if lost else "",
        "\n".join(f"- {note}" for note in about.get("notes", [])),
    ]


def text_distributions(text: TextRows) -> list[Bars | None]:
    """Rows by label, if there are labels, and by the length of their text."""
    rows = text.all_rows()
    answer = TASKS[text.task][1]
    sizes = (len(str(row.get(LONG[text.task]) or "").split()) for row in rows)
    found = [most_common(f"text rows by {answer}", (row[answer] for row in rows))] if labels_of(rows) else []
    return [*found, by_size("words of a text", sizes)]


def text_limits(text: TextRows) -> list[str]:
    """What to know before the rows are used."""
    longest = max(text.all_rows(), key=lambda row: len(str(row.get(LONG[text.task]) or "")))
    lines = [
        "A public set may be part of what a model was pre-trained on: compare with the untrained model.",
        f"The longest text is {longest['id']} with {len(str(longest.get(LONG[text.task]) or '')):,} characters; what a "
        "model cannot read in full is cut at the end of the text, and counted.",
    ]
    if text.repeated:
        lines.append(f"{text.repeated:,} rows ask what another row of the same split asks.")
    return lines
