"""The instructions of each category. One phrasing is drawn per pair."""

from __future__ import annotations

from pathlib import Path

from common.console import UserError
from common.files import read_json
from data.instruct.gap import GAP

INSTRUCTIONS = {
    "docstring": (
        "Write a Google-style docstring for this function. Reply with the docstring.",
        "Document `{name}` in Google style. Give only the docstring: a summary, then what it takes and gives back.",
        "This function has no docstring. Write one in Google style that says what it does, takes and gives back.",
        "What should the docstring of `{qualname}` say? Write it in Google style, quotes included, and nothing else.",
        "Add the missing documentation: a docstring with Args and Returns, as in Google's style guide. No code.",
        "A colleague has to call `{name}` without reading its body. Write the Google-style docstring that suffices.",
    ),
    "explain": (
        "What does this function do? Answer in a few sentences.",
        "Explain `{name}` in plain words.",
        "Describe what this function computes and what one should know to use it.",
        "I have found `{qualname}` in `{module}`. What is it for, and what does it give back?",
        "Summarise this code for someone who is about to call it. A short paragraph, no code.",
        "In two or more sentences: what happens when `{name}` is called?",
    ),
    "bugfix": (
        "This function has a bug. Say what it is, then give the whole corrected function in a Python code block.",
        "`{name}` gives wrong results. Name the bug and reply with the corrected function in a code block.",
        "Find the bug in this function. Explain it in a sentence, then write the whole fixed function in a block.",
        "A test of `{name}` fails since the last change. What is the error? Give the whole function, fixed, as code.",
        "Debug this code: first what is wrong, then the complete corrected function in a Python code block.",
        "`{qualname}` does not do what its docstring says. What is the bug? Answer with the fixed function in a block.",
    ),
    "complete": (
        "Write the body of this function. Reply with the body only, in a Python code block.",
        "Implement `{name}` as its docstring says. Give only the lines that follow the docstring, as a code block.",
        "Complete this function: write the code that comes after the docstring in a Python code block.",
        "`{qualname}` of `{module}` is specified but not written. Write its body, indented, in a code block.",
        "Continue this code up to the end of the function. Answer with a Python code block.",
        "Here are a signature and a docstring. What code does what they promise? Reply with the body in a code block.",
    ),
    "unit_test": (
        "Write a short test for this function of `{module}`. Start with the imports it needs.",
        "Write a pytest function `test_{test_name}` for `{name}` from `{module}`, imports included.",
        "Test `{qualname}` of `{module}`: give the imports and one test function with assertions.",
        "How would you check that `{name}` works? Write one test that could fail. It is imported from `{module}`.",
        "`{module}.{qualname}` has no test. Write one, small and runnable, with the imports at the top.",
        "Give a regression test for `{name}` (in `{module}`): imports, then a function whose name starts with `test_`.",
    ),
    "improve": (
        "Improve this function without changing what it does. Reply with the whole function.",
        "Rewrite `{name}` so that it is clearer and more idiomatic. Keep its behaviour. Give the whole function.",
        "Clean up this code: better names and constructs, same results. Reply with the function.",
        "You review `{qualname}`: it works, but is clumsy. Show how you would write it. The whole function, please.",
        "Refactor this function for readability. Its signature and its results stay.",
        "Make this code more Pythonic and keep what it computes. Answer with the complete function.",
    ),
    "fim": (
        "Fill in the lines that are missing at {gap}. Reply with these lines only.",
        "Part of `{name}` was deleted where it says {gap}. Write what belongs there, indented, and nothing else.",
        "What code stands at {gap}? Answer with the missing lines.",
        "Complete `{qualname}` at {gap}, so that what comes before and after fits. Give the inserted lines only.",
        "The cursor is at {gap}. Insert the code that this function lacks.",
    ),
}


def worded(phrase: str, *, name: str, qualname: str, module: str) -> str:
    """An instruction with a function's names in it. Raises KeyError, IndexError or ValueError for an unknown field."""
    return phrase.format(name=name, qualname=qualname, module=module, test_name=name.strip("_"), gap=GAP)


def read_instructions(path: Path) -> dict[str, list[str]]:
    """Instructions in place of ours: a JSON file {category: [phrase, …]}, phrases as above.

    UserError for anything else, and for a phrase with a field that there is not.
    """
    given = read_json(path)
    form = f"{path}: give {{category: [instruction, …]}}, categories of {', '.join(INSTRUCTIONS)}"
    if not isinstance(given, dict) or not given.keys() <= INSTRUCTIONS.keys():
        raise UserError(form)
    for phrases in given.values():
        if not phrases or not isinstance(phrases, list) or not all(isinstance(one, str) and one for one in phrases):
            raise UserError(form)
        for phrase in phrases:
            try:
                worded(phrase, name="name", qualname="name", module="module")
            except (KeyError, IndexError, ValueError):
                fields = "{name}, {qualname}, {module}, {test_name} and {gap}"
                raise UserError(f"{path}: {phrase!r} has other fields than {fields}") from None
    return given
