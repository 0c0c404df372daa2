"""Text and numbers as LaTeX: escaping, macros, tables."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

NOT_RUN = r"\notrun{}"  # what stands in the place of a result that does not exist yet; paper.tex defines it

SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}", "`": r"\textasciigrave{}",
    **{character: f"\\{character}" for character in "#$%&_{}"},
}  # fmt: skip
TYPOGRAPHIC = {
    "−": "$-$", "×": r"$\times$", "±": r"$\pm$", "≤": r"$\leq$", "≥": r"$\geq$", "°": r"$^\circ$", "→": r"$\to$",
    "–": r"\textendash{}", "—": r"\textemdash{}", "…": r"\dots{}", "‘": "`", "’": "'", "“": "``", "”": "''",
    "\N{NO-BREAK SPACE}": "~",
}  # fmt: skip
GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ζ": "zeta", "η": "eta", "θ": "theta",
    "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "π": "pi", "ρ": "rho", "σ": "sigma",
    "τ": "tau", "υ": "upsilon", "φ": "phi", "χ": "chi", "ψ": "psi", "ω": "omega", "Γ": "Gamma", "Δ": "Delta",
    "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi", "Σ": "Sigma", "Φ": "Phi", "Ψ": "Psi", "Ω": "Omega",
}  # fmt: skip
PRINTED = SPECIAL | TYPOGRAPHIC | {letter: f"$\\{name}$" for letter, name in GREEK.items()}


def escape(text: str) -> str:
    """Any text as LaTeX that prints it; a character that our fonts lack is printed as its code point."""
    return re.sub("-(?=-)", "-{}", "".join(map(_escaped, text)))  # two hyphens are no dash


def _escaped(character: str) -> str:
    if character in PRINTED or character.isascii():
        return PRINTED.get(character, character if character.isprintable() else " ")

    # accents come off where that leaves the letter a reader expects
    plain = unicodedata.normalize("NFKD", character)
    plain = "".join(one for one in plain if not unicodedata.combining(one))
    return plain if plain.isascii() and plain.strip() else f"\\texttt{{U+{ord(character):04X}}}"


def macros(texts: Mapping[str, str]) -> str:
    r"""A file of \newcommand, one for each name -> LaTeX. ValueError for a name that is not made of letters."""
    if odd := [name for name in texts if not (name.isascii() and name.isalpha())]:
        raise ValueError(f"a macro's name has letters only: {odd[0]}")
    return "".join(f"\\newcommand{{\\{name}}}{{{text}}}\n" for name, text in texts.items())


def tabular(columns: str, header: Sequence[str], groups: Sequence[Sequence[Sequence[str]]]) -> str:
    """A table of LaTeX cells, ruled as booktabs does: the header, then groups of rows with a rule between them.

    columns  the column types, such as "lrr"
    ValueError for a row that is longer or shorter than the header.
    """
    if any(len(row) != len(header) for group in groups for row in group):
        raise ValueError(f"every row needs {len(header)} cells")
    rule = "\\midrule\n"
    head, *bodies = ["".join(" & ".join(row) + " \\\\\n" for row in group) for group in ([header], *groups) if group]
    body = rule.join(bodies)
    return f"\\begin{{tabular}}{{@{{}}{columns}@{{}}}}\n\\toprule\n{head}{rule}{body}\\bottomrule\n\\end{{tabular}}\n"
