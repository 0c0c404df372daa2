"""Indents Python by four spaces a level, and proves that the program stays the same."""

from __future__ import annotations

import io
import tokenize

from common.python_syntax import same_code


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
