"""Any text becomes LaTeX that prints it; tables are rectangular."""

from __future__ import annotations

import pytest

from paper.latex import escape, macros, tabular


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("100 % of a_b & #1 {x} $5", r"100 \% of a\_b \& \#1 \{x\} \$5"),
        (
            r"a\b ~ ^ <x>|",
            r"a\textbackslash{}b \textasciitilde{} \textasciicircum{} \textless{}x\textgreater{}\textbar{}",
        ),
        ("+0.1 [−0.2, +0.4] × 2 ± 1 … ", r"+0.1 [$-$0.2, +0.4] $\times$ 2 $\pm$ 1 \dots{} "),
        ("--method lora – or", r"-{}-method lora \textendash{} or"),
        ("α, Λ, Ο and naïve", r"$\alpha$, $\Lambda$, \texttt{U+039F} and naive"),
        ("a\tb\nc", "a b c"),
        ("漢", r"\texttt{U+6F22}"),
    ],
)
def test_special_characters_are_printed_and_none_is_lost(text, latex):
    assert escape(text) == latex


def test_a_macro_has_letters_only():
    assert macros({"findings": "some"}) == "\\newcommand{\\findings}{some}\n"
    with pytest.raises(ValueError, match="lora8"):
        macros({"lora8": "x"})


def test_a_table_is_rectangular_and_its_groups_are_ruled():
    rows = tabular("lr", ["a", "b"], [[["1", "2"]], [], [["3", "4"]]]).splitlines()
    assert rows[3:] == ["\\midrule", "1 & 2 \\\\", "\\midrule", "3 & 4 \\\\", "\\bottomrule", "\\end{tabular}"]
    with pytest.raises(ValueError, match="2 cells"):
        tabular("lr", ["a", "b"], [[["1"]]])
