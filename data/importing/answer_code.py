"""The code of an answer and the words around it, in one language: by the name on its fence, and by a parser.

A language is never guessed. The answer's parser must read it as code of the language; and where neither the fence nor
the question names a language, no parser of those before it in UNNAMED may read it, too.
"""

from __future__ import annotations

import re

from common.markdown import blocks, without_blocks
from common.python_syntax import parsed
from data.checks.code_blocks import is_code, split_answer
from data.corpus.languages import COMMENTS, GRAMMARS, NAMES, tree_of

FENCES = {  # names of fences, besides the language's own
    "javascript": ("js", "jsx", "mjs", "node", "nodejs"), "typescript": ("ts", "tsx"), "cpp": ("c++",),
    "csharp": ("c#", "cs"), "go": ("golang",), "ruby": ("rb",), "rust": ("rs",),
}  # fmt: skip
OTHER_FENCES = {*FENCES, *(name for names in FENCES.values() for name in names), "c", "java", "php"}  # than Python's
QUESTIONS = {  # words of a question that name the language of its answer
    "python": r"\bpython",
    "javascript": r"\bjava ?script\b|\bnode\.?js\b|\breact(?:js)?\b|\bjquery\b|\bangular\b|\bvue\b|\bjs\b",
    "typescript": r"\btypescript\b",
    "c": r"(?i:\bC (?:program|code|function|language)\b)|\bin C\b(?![+#])",
    "cpp": r"\bC\+\+",
    "csharp": r"\bC#",
    "go": r"(?i:\bgolang\b)|\bin Go\b|\bGo (?:program|code|function)\b",
    "java": r"\bjava\b(?! ?script)",
    "php": r"\bphp\b",
    "ruby": r"\bruby\b",
    "rust": r"\brust\b",
}
CASED = ("c", "go")  # names that are ordinary words, too
OTHERS = re.compile(  # languages of which no rows are made
    r"\b(?:(?:my)?sql|html5?|css|bash|shell|perl|swift|kotlin|scala|matlab|haskell|arduino|assembly|lisp|powershell"
    r"|visual basic|vba|objective-c|latex|xml)\b|\bin R\b",
    re.IGNORECASE,
)
UNNAMED = ("python", "javascript", "typescript")  # each is refused what the ones before it can be read as
LEAST_WORDS = 8  # of an explanation
# a label is what "Answer: x" begins with
_WRAPPERS = ("labeled_statement", "expression_statement", "sequence_expression", "parenthesized_expression")
_DOES_SOMETHING = frozenset(
    ("call_expression", "assignment_expression", "augmented_assignment_expression", "update_expression",
     "new_expression", "await_expression", "yield_expression")
)  # fmt: skip


def refused_by_question(asked: str, language: str) -> str | None:
    """Why a question cannot be meant for a language: "asks for sql"; None if it may be."""
    if _names(asked, language):
        return None
    others = [match for other in QUESTIONS if other != language and (match := _names(asked, other))]
    other = min([*others, *OTHERS.finditer(asked)], key=lambda match: match.start(), default=None)
    return f"asks for {other.group().lower()}" if other else None


def parted(answer: str, language: str = "python", asked: str = "") -> tuple[str, str]:
    """The code of an answer in a language, and the words around it ("" for fewer than LEAST_WORDS).

    asked  the question, which may name the language
    ValueError says why there is none.
    """
    answer = answer.replace("\r\n", "\n").strip("\n")
    if language == "python":
        found, around = _python_blocks(answer)
        named = True  # what parses as Python is first in UNNAMED
    else:
        found, around, named = _blocks_in(answer, language)
    code = "\n\n".join(block.strip("\n") for block in found) if found else answer
    if problem := _no_code(code, language):
        raise ValueError(problem)
    if not named and not _names(asked, language):
        _refuse_ambiguous(code, language)
    words = re.sub(r"\n{3,}", "\n\n", around).strip() if found else ""
    return code.rstrip(), words if len(words.split()) >= LEAST_WORDS else ""


def _names(asked: str, language: str) -> re.Match | None:
    return re.search(QUESTIONS[language], asked, 0 if language in CASED else re.IGNORECASE)


def _python_blocks(answer: str) -> tuple[list[str], str]:
    """`split_answer`. ValueError where every fence names another of the languages."""
    fences = [] if parsed(answer) else [block.language for block in blocks(answer)]
    if fences and all(fence in OTHER_FENCES for fence in fences):
        raise ValueError(f"a block of {fences[0]}")
    return split_answer(answer)


def _blocks_in(answer: str, language: str) -> tuple[list[str], str, bool]:
    """The blocks of the language, or those without a name; the text without any; whether their fences name it."""
    filled = [block for block in blocks(answer) if block.text.strip()]
    ours = [block.text for block in filled if block.language in (language, *FENCES.get(language, ()))]
    unnamed = [block.text for block in filled if not block.language]
    if filled and not (ours or unnamed):
        raise ValueError(f"a block of {filled[0].language}")
    return ours or unnamed, without_blocks(answer), bool(ours)


def _no_code(code: str, language: str) -> str | None:
    """Why a text is no code of a language; None if it is."""
    if language == "python":
        tree = parsed(code)
        return None if is_code(tree) else "a value or a word, no code" if tree else "no Python that parses"
    roots = [tree_of(code, grammar).root_node for grammar in dict.fromkeys(GRAMMARS[language].values())]
    read = [root for root in roots if not root.has_error]
    if not read:
        return f"no {NAMES[language]} that parses"
    return None if any(map(_does_something, read[0].named_children)) else "a value or a word, no code"


def _does_something(statement) -> bool:
    """Whether a statement of tree-sitter's is more than a comment, a value or a name, which plain words may be."""
    if statement.type in _WRAPPERS:
        return any(map(_does_something, statement.named_children))
    if statement.type.endswith(("_expression", "identifier", "string", "number")) or statement.type == "array":
        return statement.type in _DOES_SOMETHING
    return statement.type not in COMMENTS | {"text", "empty_statement", "true", "false", "null", "object", "regex"}


def _refuse_ambiguous(code: str, language: str) -> None:
    """ValueError unless a text in no named language can only be of this one."""
    if language not in UNNAMED:
        raise ValueError(f"nothing says that it is {NAMES[language]}")
    for other in UNNAMED[: UNNAMED.index(language)]:
        if _no_code(code, other) is None:
            raise ValueError(f"reads as {NAMES[other]}, and nothing says that it is {NAMES[language]}")
