"""The references: each is cited, each citation has one, and those of the methods, data and models are there."""

from __future__ import annotations

import re
from pathlib import Path

import paper

PAPER = Path(paper.__file__).parent
ENTRIES = re.findall(r"^@(\w+)\{(\w+),\n(.*?)^\}", (PAPER / "references.bib").read_text(encoding="utf-8"), re.M | re.S)
TEXT = "".join(path.read_text(encoding="utf-8") for path in sorted((PAPER / "sections").glob("*.tex")))
NEEDED = {
    "houlsby2019", "li2021prefix", "lester2021", "hu2022lora", "liu2022ia3", "liu2022ptuning", "benzaken2022",
    "dettmers2023", "biderman2024", "he2022", "mangrulkar2022",
    "li2002trec", "jin2019pubmedqa", "cachola2020",
    "benallal2025", "hui2024", "yang2025", "zhang2024", "guo2024",
}  # fmt: skip


def test_every_citation_has_a_reference_and_every_reference_is_cited():
    cited = {key for keys in re.findall(r"\\cite\w*(?:\[[^]]*\])*\{([^}]*)\}", TEXT) for key in keys.split(",")}
    keys = [key for _, key, _ in ENTRIES]
    assert sorted(cited) == sorted(keys) and cited >= NEEDED


def test_every_reference_says_who_what_when_and_where():
    where = {"inproceedings": "booktitle", "article": "journal", "book": "publisher", "misc": "(?:note|howpublished)"}
    for kind, key, fields in ENTRIES:
        for field in ("author", "title", "year", where[kind]):
            assert re.search(rf"^  {field}\s+= \{{.+\}},$", fields, re.M), (key, field)
        identifiers = re.findall(r"arXiv:(\S+?)[,}\s]", fields)
        assert all(re.fullmatch(r"\d{4}\.\d{4,5}", one) for one in identifiers), key
        year = int(re.search(r"year\s+= \{(\d{4})\}", fields)[1])
        assert all(0 <= year - (2000 + int(one[:2])) <= 2 for one in identifiers), key  # as a preprint first
