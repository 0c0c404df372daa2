"""The instructions for functions in JavaScript and TypeScript, by category. One phrasing is drawn per pair."""

from __future__ import annotations

SCRIPT_INSTRUCTIONS: dict[str, tuple[str, ...]] = {
    "docstring": (
        "Write a JSDoc comment for this function. Reply with the comment.",
        "Document `{name}` with JSDoc: a summary, then @param and @returns. Give only the comment.",
        "This function has no JSDoc. Write one that says what it does, what it takes and what it gives back.",
        "A colleague has to call `{name}` without reading its body. Write the JSDoc comment that suffices.",
    ),
    "explain": (
        "What does this function do? Answer in a few sentences.",
        "Explain `{name}` in plain words.",
        "Describe what this function computes and what one should know to use it.",
        "I have found `{qualname}` in `{module}`. What is it for, and what does it give back?",
    ),
    "bugfix": (
        "This function has a bug. Say what it is, then give the whole corrected function in a code block.",
        "`{name}` gives wrong results. Name the bug and reply with the corrected function in a code block.",
        "Find the bug in this function. Explain it in a sentence, then write the whole fixed function in a block.",
        "Debug this code: first what is wrong, then the complete corrected function in a code block.",
    ),
    "complete": (
        "Write this function. Reply with the whole function, body included, in a code block.",
        "Implement `{name}` as its JSDoc says. Give the complete function as a code block.",
        "`{qualname}` of `{module}` is specified but not written. Write the whole function in a code block.",
        "Here are a comment and a signature. What code does what they promise? Reply with the function in a block.",
    ),
}
