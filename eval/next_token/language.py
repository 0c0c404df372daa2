"""Which of two programming languages a token belongs to, judged in its place: by word lists and by parsers.

    before          token        of Python and TypeScript
    ""              "function"   TypeScript: a word of one and not of the other, which its parser accepts here
    "const x"       ": string"   TypeScript: only its parser accepts the text with the token
    ""              "import"     neither of the two alone: both accept it
    "```"           "type"       TypeScript: the fence names it
    "Write a loop"  "."          undecided: no program in either language begins so
    ""              "`"          undecided: not yet code

A parser accepts a text that is no program yet if one of a few endings, with the open brackets closed, makes it one.
"""

from __future__ import annotations

import codeop
import functools
import re
import warnings

from data.corpus.languages import tree_of

# Telling words and signs: what English has, too, such as "is", "for" or "this", tells nothing and is left out.
_JAVASCRIPT = """
    function const let var typeof instanceof undefined null catch switch extends console document window require module
    exports prototype Promise JSON Math Array Object Symbol === !== && || => // /* /** ++ --
"""
_TYPESCRIPT = """
    interface enum namespace declare readonly keyof infer satisfies implements abstract boolean unknown never Record
    Partial Readonly
"""
_PYTHON = """
    def elif lambda self None True False nonlocal except raise print len range isinstance enumerate dict tuple str int
    __init__ __name__ kwargs # ''' \"\"\" :=
"""
WORDS = {
    "python": frozenset(_PYTHON.split()),
    "javascript": frozenset(_JAVASCRIPT.split()),
    "typescript": frozenset((_JAVASCRIPT + _TYPESCRIPT).split()),
}
FENCES = {  # what may follow an opening fence
    "python": ("python", "python3", "py"),
    "javascript": ("javascript", "js", "jsx"),
    "typescript": ("typescript", "ts", "tsx"),
}
_ENDINGS = {
    "python": ("", "x", " x", " x:", " x():", ":", " in x:", " x in x:", " = x", "= x", " import x", "'", '"', "x: x"),
    "script": ("", "x", " x", " x()", " {}", " x {}", " = x", ": x", " of x", "x>"),
}
_TAILS = ("", " {}", " from 'x'")  # after the closed brackets of a script
_BRACKETS = {"(": ")", "[": "]", "{": "}"}
# comments and strings that are complete
_WHOLE = re.compile(r"""//[^\n]*|/\*.*?\*/|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`""", re.DOTALL)
_OPEN_FENCE = re.compile(r"```([^\n`]*)\Z")


def code_before(text: str) -> str:
    """The code that a text ends with: what follows its last fence if that is open, the whole text without a fence."""
    before, fence, after = text.rpartition("```")
    is_open = (before + fence).count("```") % 2 == 1
    if not fence or not is_open:
        return text if not fence else ""
    return after.partition("\n")[2] if "\n" in after else fence + after  # else the line of the fence itself


def language_of(before: str, token: str, languages: tuple[str, str]) -> str | None:
    """The one of two languages that a token belongs to; None if it may be either or neither.

    before     the code that the token continues, as `code_before` gives it
    languages  two of WORDS
    """
    text = before + token
    if fence := _OPEN_FENCE.search(text):
        named = fence[1].strip().lower()
        return _only(languages, lambda language: named and any(name.startswith(named) for name in FENCES[language]))
    word = token.strip()
    told = _only(languages, lambda language: word in WORDS[language])
    if told is not None and accepts(told, f"{text} "):  # as a whole word: a longer one might be a name
        return told
    if not word or not any(accepts(language, before) for language in languages):
        return told  # blank space, or a text that is no code: a parser cannot tell
    if not before.strip() and not word.isidentifier():
        return told  # a sign at the very beginning may be Markdown's as well: a backtick, a dash
    return _only(languages, lambda language: accepts(language, text))


def _only(languages: tuple[str, str], holds) -> str | None:
    """The language for which something holds, if it does not hold for the other."""
    found = [language for language in languages if holds(language)]
    return found[0] if len(found) == 1 else None


@functools.lru_cache(maxsize=100_000)
def accepts(language: str, text: str) -> bool:
    """Whether a program in a language can begin with this text."""
    if language not in WORDS:
        raise ValueError(f"no parser for {language}: {', '.join(WORDS)}")
    if language == "python":
        return any(_is_begun_python(text + ending) for ending in _ENDINGS["python"])
    closed = (text + ending + closing_brackets(text + ending) for ending in _ENDINGS["script"])
    return any(not tree_of(code + tail, language).root_node.has_error for code in closed for tail in _TAILS)


def _is_begun_python(text: str) -> bool:
    """Whether a text is Python, or would be with more lines."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            codeop.compile_command(text, "<text>", "exec")
    except (SyntaxError, ValueError, OverflowError):
        return False
    return True


def closing_brackets(text: str) -> str:
    """What closes the string, comment and brackets that a script leaves open."""
    rest = _WHOLE.sub("", text)
    unclosed = re.search(r"/\*|['\"`]", rest)
    opened: list[str] = []
    for one in rest[: unclosed.start()] if unclosed else rest:
        if one in _BRACKETS:
            opened.append(_BRACKETS[one])
        elif opened and one == opened[-1]:
            opened.pop()
    end = unclosed[0].replace("/*", "*/") if unclosed else ""
    return end + "\n" * bool(opened) + "".join(reversed(opened))  # on a new line: the last may end in a comment
