"""Imports instruction rows from elsewhere (Alpaca, chat, prompt and completion), Python only, cleaned for training.

    python -m data.importing code_alpaca_20k.json --out DIR
    python -m data.importing hub:sahil2801/CodeAlpaca-20k/code_alpaca_20k.json --out DIR

The same rows in two variants with the same ids and split: `code/` answers with the code alone, `explained/` with the
code and its explanation. Rows without an explanation are in the latter only if a teacher explains them.
"""

from __future__ import annotations

import glob
import io
import re
import sys
import tokenize
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from common.console import UserError, progress, run_command
from common.files import SURROGATE, read_objects, write_json, write_jsonl
from common.markdown import blocks, fenced
from common.options import as_settings, option, parse
from common.python_syntax import parsed, same_code
from common.shuffle import seeded_order
from data.checks.code_blocks import is_code, split_answer
from data.checks.thoughts import split_thoughts
from data.corpus import SPLITS
from data.instruct.pair_filters import PLACEHOLDER, Distinct, pair_problem
from data.instruct.replies import Reply
from data.instruct.teacher import Teacher
from data.instruct.teacher_options import TEACHER, TeacherOptions, teacher_of
from data.instruct.teaching import SYSTEM
from data.rows import training_conversation
from model.hub import snapshot
from model.unrendered import THOUGHTS

HUB = "hub:"
OTHER_LANGUAGE = re.compile(
    r"\b(java ?script|typescript|java|ruby|php|(?:my)?sql|html5?|css|bash|shell|perl|rust|swift|kotlin|scala|matlab"
    r"|haskell|react(?:js)?|angular|vue|node\.?js|jquery|golang|arduino|assembly|lisp|powershell|visual basic|vba"
    r"|objective-c|latex|xml)\b|\bC(?:\+\+|#)|\bC (?:program|code|function|language)\b|\bin (?:C|R|Go)\b(?![+#])",
    re.IGNORECASE,
)
LEAST_WORDS = 8  # of an explanation
LONGEST = 4000  # characters of an answer, and of a question
EXPLAIN = "{question}\n\n{code}\n\nExplain this solution in two to four sentences. No code."


@dataclass(frozen=True)
class ImportedRow:
    """A kept row: the conversation up to the answer, and the answer's code and words separately."""

    id: str
    question: tuple[dict, ...]  # messages
    code: str
    words: str  # "" when the answer is code alone
    fields: dict = field(default_factory=dict)  # "instruction" and "input" if the row had them
    thoughts: str = ""  # of a reasoning model, before its answer: kept, but not trained on

    def as_pair(self, *, explained: bool, source: dict) -> dict:
        """The row to train on: an instruction pair, or chat if the question has several messages."""
        answer = f"{fenced(self.code, 'python')}\n\n{self.words}" if explained else self.code
        head = {"id": self.id, "category": "explained code" if explained else "code"}
        rest = {"source": source} | ({"thoughts": self.thoughts} if self.thoughts else {})
        if self.fields:
            return {**head, **self.fields, "output": answer, **rest}
        messages = [*self.question, {"role": "assistant", "content": answer}]
        return {**head, "messages": messages, **rest}


def import_rows(rows: list[dict], *, name: str) -> tuple[list[ImportedRow], list[dict]]:
    """Rows of any accepted form that answer in Python, and rejects: {"id", "reason"}. Ids are NAME/row, from 1."""
    kept, rejects, distinct = [], [], Distinct()
    for number, row in enumerate(progress(rows, what="importing", unit="row"), 1):
        try:
            one = _read_row(f"{name}/{number}", row)
            problem = distinct.problem("", f"{_asked(one)}\n{one.code}")
        except ValueError as error:
            one, problem = None, str(error)
        if problem:
            rejects.append({"id": f"{name}/{number}", "reason": problem})
        else:
            kept.append(one)
    return kept, rejects


def _read_row(id: str, row: dict) -> ImportedRow:
    """ValueError says why a row is not used."""
    whole = training_conversation(row)
    *question, answer = messages = whole.messages

    # only plain questions and answers, without tools
    if whole.tools or any("tool_calls" in message for message in messages):
        raise ValueError("calls tools")
    if THOUGHTS & answer.keys():
        raise ValueError("an answer with its thoughts apart")
    if not any(message["content"].strip() for message in question):
        raise ValueError("no question")

    # in Python, unless the question names another language
    asked = "\n".join(message["content"] for message in question if message["role"] == "user")
    other = OTHER_LANGUAGE.search(asked)
    if other and not re.search(r"\bpython", asked, re.IGNORECASE):
        raise ValueError(f"asks for {other.group().lower()}")

    # a reasoning model's thoughts apart from its answer
    thoughts, answered = split_thoughts(answer["content"])
    if not answered.strip():
        raise ValueError("thoughts without an answer")
    if max(len(answered), len(asked)) > LONGEST:
        raise ValueError(f"over {LONGEST} characters")
    if SURROGATE.search("".join(message["content"] for message in messages)):
        raise ValueError("a lone surrogate, which no text file can hold")

    # the code, and the words around it
    code, words = parted(answered)
    code = with_four_spaces(code)
    if PLACEHOLDER.search(code):
        raise ValueError("placeholder in the answer")

    # a single question keeps "instruction" and "input" apart if the row had them apart
    fields = {}
    if len(question) == 1:
        given = {"instruction": row.get("instruction"), "input": row.get("input") or ""}
        is_apart = "\n\n".join(filter(None, given.values())) == question[0]["content"]
        alone = given if is_apart else {"instruction": question[0]["content"], "input": ""}
        fields = {key: value.strip() for key, value in alone.items()}
    return ImportedRow(id, tuple(question), code, words, fields, thoughts)


def _asked(row: ImportedRow) -> str:
    return "\n".join(message["content"] for message in row.question)


def parted(answer: str) -> tuple[str, str]:
    """The Python code of an answer and the words around it. ValueError when it has no code that parses."""
    answer = answer.replace("\r\n", "\n").strip("\n")
    blocks, around = split_answer(answer)
    code = "\n\n".join(block.strip("\n") for block in blocks) if blocks else answer
    tree = parsed(code)
    if tree is None:
        raise ValueError("no Python that parses")
    if not is_code(tree):
        raise ValueError("a value or a word, no code")
    words = re.sub(r"\n{3,}", "\n\n", around).strip() if blocks else ""
    return code.rstrip(), words if len(words.split()) >= LEAST_WORDS else ""


def with_four_spaces(code: str) -> str:
    """The code indented by four spaces per level, strings unchanged. ValueError if that would change the program.

    Continuation lines move with their statement, comments with the code beside them.
    """
    # tabs as spaces, then the depth of each statement
    lines = [_untabbed(line) for line in code.split("\n")]
    depths, heads, strings = _layout("\n".join(lines))
    was = {number: len(line) - len(line.lstrip(" ")) for number, line in enumerate(lines, 1)}

    # the new indentation of every line
    changed = []
    for number, line in enumerate(lines, 1):
        if number in strings:  # the line begins inside a string: its spaces are data
            changed.append(line)
            continue
        head = heads.get(number, number)
        if head in depths:
            indent = 4 * depths[head] + was[number] - was[head]
        else:  # a comment, or blank
            beside = [one for one in depths if one > number][:1] + [one for one in reversed(depths) if one < number][:1]
            indent = next((4 * depths[one] for one in beside if was[one] == was[number]), was[number])
        changed.append((" " * max(0, indent) + line.strip(" ")) if line.strip() else "")

    # proof: the same syntax tree
    text = "\n".join(changed)
    if not same_code(code, text):
        raise ValueError("indentation that cannot be changed safely")
    return text


def _untabbed(line: str) -> str:
    """Leading tabs as spaces, with tab stops every eight columns, as in Python."""
    rest = line.lstrip(" \t")
    return line[: len(line) - len(rest)].expandtabs(8) + rest


def _layout(code: str) -> tuple[dict[int, int], dict[int, int], set[int]]:
    """Depth by first line of each logical line; first line by continuation line; lines that begin inside a string."""
    depths: dict[int, int] = {}
    heads: dict[int, int] = {}
    strings: set[int] = set()
    depth, head = 0, None
    try:
        for token in tokenize.generate_tokens(io.StringIO(code).readline):
            (first, _), (last, _) = token.start, token.end
            if token.type in (tokenize.INDENT, tokenize.DEDENT):
                depth += 1 if token.type == tokenize.INDENT else -1
            elif token.type == tokenize.NEWLINE:
                heads |= dict.fromkeys(range((head or first) + 1, first + 1), head or first)
                head = None
            elif head is not None or token.type not in (tokenize.NL, tokenize.COMMENT, tokenize.ENDMARKER):
                strings |= set(range(first + 1, last + 1)) if token.type != tokenize.NL else set()
                head = first if head is None else head
                depths.setdefault(head, depth)
    except (tokenize.TokenError, SyntaxError):
        raise ValueError("no Python that parses") from None
    return depths, heads, strings


def explain_with(teacher: Teacher, rows: list[ImportedRow]) -> tuple[list[ImportedRow], list[dict]]:
    """The rows, those without words explained by the teacher where its answer is usable; and its unusable answers."""
    # ask for the rows without words
    silent = [row for row in rows if not row.words]
    system = {"role": "system", "content": SYSTEM}
    asked = [EXPLAIN.format(question=_asked(row), code=fenced(row.code, "python")) for row in silent]
    replies = teacher.ask([[system, {"role": "user", "content": one}] for one in asked], samples=1)

    # usable explanations by row, the others as rejects
    words, rejects = {}, []
    for row, (reply,) in zip(silent, replies, strict=True):
        if reply is None:
            continue
        problem = _explanation_problem(row, reply)
        if problem:
            rejects.append({"id": row.id, "reason": f"teacher: {problem}", "output": reply.text})
        else:
            words[row.id] = reply.text.strip()
    return [replace(row, words=row.words or words.get(row.id, "")) for row in rows], rejects


def _explanation_problem(row: ImportedRow, reply: Reply) -> str | None:
    if not reply.stopped:
        return "output that breaks off"
    if blocks(reply.text):
        return "code in an explanation"
    return pair_problem({"category": "explain", "input": row.code, "output": reply.text})


def split_rows(rows: list[ImportedRow], *, test_share: float, validation_share: float, seed: int) -> dict[str, str]:
    """The side of each row by its id: a seeded draw, shares rounded to whole rows."""
    order = seeded_order([row.id for row in rows], seed)
    test = round(test_share * len(rows))
    validation = test + round(validation_share * len(rows))
    return {
        id: "test" if position < test else "validation" if position < validation else "train"
        for position, id in enumerate(order)
    }


def read_rows(place: str) -> tuple[list[dict], str, str | None]:
    """Rows of a JSON list, JSON Lines or hub:OWNER/NAME/FILE; the file's name without suffix; the commit on the hub."""
    path, commit = _from_hub(place) if place.startswith(HUB) else (Path(place), None)
    return read_objects(path), Path(path.name.removesuffix(".gz")).stem, commit


def _from_hub(place: str) -> tuple[Path, str]:
    """The file in the hub's cache, downloaded if missing, and its commit."""
    owner, name, file = (*place.removeprefix(HUB).split("/", 2), "", "")[:3]
    if not file:
        raise UserError(f"{place}: give {HUB}OWNER/NAME/FILE")
    ask = {"repo_type": "dataset", "allow_patterns": [glob.escape(file)]}
    folder = snapshot(f"{owner}/{name}", what="data set", instead="a file", **ask)
    if not (folder / file).is_file():
        raise UserError(f"{owner}/{name}: could not be fetched from the hub (no such file as {file}); give a file")
    return folder / file, folder.name


@dataclass(frozen=True, kw_only=True)
class Options(TeacherOptions):
    """Options of this command."""

    GROUPS = ("options", TEACHER)

    file: str = option(help=f"JSON list, JSON Lines, or {HUB}OWNER/NAME/FILE of a data set on the hub", positional=True)
    out: Path = option(help="folder to write", metavar="DIR")
    license: str | None = option(None, "licence of the rows, recorded with each (default: unknown)", metavar="SPDX")
    test_share: float = option(0.1, "share of the rows to test on")
    validation_share: float = option(0.1, "share of the rows to validate on")
    seed: int = option(0, "seed of the split")

    def __post_init__(self) -> None:
        """UserError for shares that leave nothing to train on, and for a file where a folder is to be written."""
        if min(self.test_share, self.validation_share) < 0 or self.test_share + self.validation_share >= 1:
            raise UserError("--test-share and --validation-share must not be negative and stay below 1 together")
        if self.out.exists() and not self.out.is_dir():
            raise UserError(f"--out {self.out}: is a file; give a folder")


def main() -> None:
    """Import rows: code/ and explained/ with train, validation and test.jsonl, and rejects.jsonl, about.json."""
    # the rows that answer in Python, explained by the teacher if there is one
    options = parse(Options, description=main.__doc__)
    rows, name, commit = read_rows(options.file)
    teacher = teacher_of(options, options.out)
    kept, rejects = import_rows(rows, name=name)
    reasons = Counter(reject["reason"] for reject in rejects).most_common()
    if not kept:
        raise UserError(f"{options.file}: no row answers in Python ({reasons[0][0] if reasons else 'it is empty'})")
    if teacher:
        kept, refused = explain_with(teacher, kept)
        rejects += refused

    # two variants with the same ids and split
    shares = {"test_share": options.test_share, "validation_share": options.validation_share}
    side = split_rows(kept, **shares, seed=options.seed)
    source = {"path": options.file, "commit": commit, "license": options.license}
    for variant, chosen in (("code", kept), ("explained", [row for row in kept if row.words])):
        for split in SPLITS:
            here = [row for row in chosen if side[row.id] == split]
            pairs = [row.as_pair(explained=variant == "explained", source=source) for row in here]
            write_jsonl(options.out / variant / f"{split}.jsonl", pairs)
        counts = Counter(side[row.id] for row in chosen)
        print(f"{variant:<10}{len(chosen):>6} rows: " + ", ".join(f"{counts[split]} {split}" for split in SPLITS))

    # what was left out, and how this was made
    write_jsonl(options.out / "rejects.jsonl", rejects)
    about = {"schema": 1, "kind": "imported instruction rows", "commit": commit, "options": as_settings(options)}
    write_json(options.out / "about.json", about)
    for reason, count in Counter(reject["reason"] for reject in rejects).most_common():
        print(f"rejected {count:>6}  {reason}")
    if thinking := sum(bool(row.thoughts) for row in kept):
        print(f'{thinking} answers of a reasoning model: its thoughts are kept in "thoughts", apart from the answer')
    if teacher:
        print(f"teacher  {teacher.summary()}")


if __name__ == "__main__":
    sys.exit(run_command(main))
