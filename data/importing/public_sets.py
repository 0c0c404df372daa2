"""Public data sets as they are published: how each is recognised, and how its records become text rows.

A set is recognised by the fields of its first record, or named (--as). A record that has not the set's form is an
error; one that the set's own conventions leave without an answer (labels kept secret) is left out and counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from common.console import UserError
from data.text_rows import VERDICTS, task_of

# TREC's six classes (Li and Roth, COLING 2002): as published, and as numbers in the files of later papers and the hub
TREC = {
    "ABBR": "abbreviation", "ENTY": "entity", "DESC": "description", "HUM": "human", "LOC": "location", "NUM": "number",
}  # fmt: skip
TREC_DIGITS = ("DESC", "ENTY", "ABBR", "HUM", "LOC", "NUM")
TREC_LINE = re.compile(r"(?:(?P<name>[A-Z]+):(?P<fine>\w+)|(?P<digit>\d+))\s+(?P<text>\S.*)")
AG_NEWS = ("World", "Sports", "Business", "Sci/Tech")
SST2 = ("negative", "positive")
SST2_FIELDS = {"sentence", "label", "idx", "index"}


class LeftOutError(Exception):
    """A record that cannot become a row; the message is the reason, to be counted."""


@dataclass(frozen=True)
class PublicSet:
    """One form of a set: the same set may be published in several.

    expects  what a record looks like, for errors
    fits     whether a record has the set's fields
    row_of   record -> text row, without id unless the record has one. ValueError, TypeError or LookupError for a
             record of another form
    by_name  never recognised: other sets have the same fields
    """

    name: str
    expects: str
    fits: Callable[[dict], bool]
    row_of: Callable[[dict], dict]
    by_name: bool = False


def _has(*fields: str) -> Callable[[dict], bool]:
    return lambda record: record.keys() >= set(fields)


def recognise(record: dict, name: str | None, where: str) -> PublicSet | None:
    """The set whose fields the record has; of that name, if one is given. None if there is no such set.

    UserError when a named set looks different, and says what was expected.
    """
    candidates = [one for one in SETS if (one.name == name if name else not one.by_name)]
    found = [one for one in candidates if one.fits(record)]
    if name and not found:
        expected = ", or ".join(one.expects for one in candidates)
        raise UserError(f"{where}: not {name}: expected {expected} (found {_shown(record)})")
    return found[0] if found else None


def unknown_set(record: dict, where: str) -> UserError:
    """The error for a record that no set has: what would have been read."""
    known = "; ".join(f"{one.name}: {one.expects}" for one in SETS)
    return UserError(f"{where}: no known data set (found {_shown(record)}). Known are {known}")


def text_row(public: PublicSet, record: dict, where: str) -> dict:
    """The text row of a record. LeftOutError for one without an answer or a text; UserError names a bad one."""
    try:
        row = public.row_of(record)
    except (LookupError, ValueError, TypeError, AttributeError):
        raise UserError(f"{where}: not {public.name}: expected {public.expects} (found {_shown(record)})") from None
    row = {key: value.strip() if isinstance(value, str) else value for key, value in row.items()}
    if any(not text for text in (row.get("text", "x"), row.get("question", "x"), row.get("document", "x"))):
        raise LeftOutError("empty text")
    if any(not text for text in (row.get("label", "x"), row.get("answer", "x"), row.get("summary", "x"))):
        raise LeftOutError("no answer")
    return row


def _trec_line(record: dict) -> dict:
    match = TREC_LINE.fullmatch(record["line"].strip())
    if match is None:
        raise ValueError(record["line"])
    name = match["name"] or TREC_DIGITS[int(match["digit"])]
    fine = {"fine": f"{name}:{match['fine']}"} if match["fine"] else {}
    return {"text": match["text"], "label": TREC[name], "labels": [*TREC.values()], **fine}


def _trec_record(record: dict) -> dict:
    name = record["coarse_label"]
    name = [*TREC][_number(name)] if isinstance(name, int) else name
    return {"text": record["text"], "label": TREC[name], "labels": [*TREC.values()]}


def _ag_news_cells(record: dict) -> dict:
    """Class from 1, title, description; a backslash stands for a line break."""
    number, title, description = record["cells"] if "cells" in record else record.values()
    return _ag_news(f"{title} {description}", AG_NEWS[_number(int(number) - 1)])


def _ag_news_record(record: dict) -> dict:
    label = record["label"]
    return _ag_news(record["text"], AG_NEWS[_number(label)] if isinstance(label, int) else label)


def _ag_news(text: str, label: str) -> dict:
    plain = " ".join(text.replace("\\n", " ").replace("\\", " ").split())
    return {"text": plain, "label": label, "labels": list(AG_NEWS)}


def _sst2(record: dict) -> dict:
    label = record.get("label", -1)
    if label in (-1, "-1"):
        raise LeftOutError("no label: the set keeps it secret")
    label = label if label in SST2 else SST2[_number(int(label))]
    return {"text": record["sentence"], "label": label, "labels": list(SST2)}


def _squad(record: dict) -> dict:
    answers = list(dict.fromkeys(record["answers"]["text"]))
    if not answers:
        raise LeftOutError("no answer in the context (SQuAD 2.0)")
    asked = {key: record[key] for key in ("id", "question", "context")}
    return asked | {"answer": answers[0]} | ({"references": answers[1:]} if answers[1:] else {})


def _boolq(record: dict) -> dict:
    answer = record["answer"] if "answer" in record else record.get("label", -1)
    if answer in (-1, "-1"):
        raise LeftOutError("no label: the set keeps it secret")
    yes = {True: "yes", False: "no", "True": "yes", "False": "no"}[answer]  # 1 and 0 are equal to True and False
    return {"question": record["question"], "context": record["passage"], "answer": yes, "labels": ["yes", "no"]}


def _pubmedqa(record: dict) -> dict:
    decision = record.get("final_decision")
    if decision is None:
        raise LeftOutError("no final_decision")
    context = "\n".join(record["context"]["contexts"])
    row = {"id": str(record["pubid"]), "question": record["question"], "context": context, "answer": decision}
    if decision not in VERDICTS:
        raise ValueError(decision)
    return row | {"labels": list(VERDICTS)}


def _scitldr(record: dict) -> dict:
    """The sentences of an abstract (or of more of the paper), and one or several summaries."""
    first, *others = [text.strip() for text in record["target"] if text.strip()] or [""]
    row = {"document": " ".join(sentence.strip() for sentence in record["source"]), "summary": first}
    named = {"id": record["paper_id"]} if record.get("paper_id") else {}
    return named | row | ({"references": others} if others else {})


def _cnn_dailymail(record: dict) -> dict:
    named = {"id": record["id"]} if record.get("id") else {}
    return named | {"document": record["article"], "summary": record["highlights"]}


def _number(value: int) -> int:
    """An index from 0 on: a negative one would count from the end."""
    if value < 0:
        raise ValueError(value)
    return value


def _shown(record: dict) -> str:
    values = record.get("cells") or ([record["line"]] if "line" in record else None)
    return repr(" | ".join(map(str, values))[:80]) if values else ", ".join(map(str, record)) or "an empty object"


SETS = (
    PublicSet("trec", 'lines such as "HUM:ind Who was Galileo ?" or "3 Who was Galileo ?" (a digit from 0 to 5)',
              lambda one: bool(TREC_LINE.fullmatch(one.get("line", "").strip())), _trec_line),
    PublicSet("trec", '"text" and "coarse_label"', _has("text", "coarse_label"), _trec_record),
    PublicSet("ag_news", "three columns: class (1 to 4), title, description",
              lambda one: len(one.get("cells", ())) == 3 or [*one] == ["Class Index", "Title", "Description"],
              _ag_news_cells),
    PublicSet("ag_news", '"text" and "label", one of its four names', lambda one: one.get("label") in AG_NEWS,
              _ag_news_record),
    PublicSet("ag_news", '"text" and "label" (0 to 3)', _has("text", "label"), _ag_news_record, by_name=True),
    PublicSet("sst2", '"sentence" and "label" (0 or 1)', lambda one: "sentence" in one and not one.keys() - SST2_FIELDS,
              _sst2),
    PublicSet("squad", '"id", "context", "question" and "answers": {"text": […]}',
              _has("id", "context", "question", "answers"), _squad),
    PublicSet("boolq", '"question", "passage" and "answer": true', _has("question", "passage"), _boolq),
    PublicSet("pubmedqa", "QUESTION, CONTEXTS and final_decision by id (the hub: pubid, question, context)",
              _has("pubid", "question", "context"), _pubmedqa),
    PublicSet("scitldr", '"source" and "target", lists of sentences', _has("source", "target"), _scitldr),
    PublicSet("cnn_dailymail", '"article" and "highlights"', _has("article", "highlights"), _cnn_dailymail),
    PublicSet("rows", '"text" and "label", "question" and "answer", or "document" and "summary", as texts (XSum)',
              lambda one: task_of(one) is not None, dict),
)  # fmt: skip
