"""Chooses the weights of data/search/ranking.py by coordinate ascent, and measures them on other repositories.

Each weight in turn takes the value that ranks files best, over repositories and models, as long as functions are found
no worse than without rules. Cross-validation over repositories does so on four fifths of them and measures the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean

import numpy as np

from data.search.ranking import CHOSEN, NONE, Weights
from experiments.code_search.queries import Asked

GRID = {
    "words": (0.5, 0.7, 1.0), "path": (0.3, 0.5, 0.8), "file_name": (0.0, 0.1, 0.2), "name": (0.1, 0.2, 0.3),
    "definition": (2.0, 4.0), "file": (0.3, 0.5, 0.8), "again": (0.75, 0.8, 0.85),
}  # fmt: skip
ROUNDS = 2


@dataclass(frozen=True)
class Measured:
    """What the models found: of each the repositories' and the functions' pools, and what settings gave so far."""

    files: Mapping[str, Mapping[str, Asked]]  # model -> repository
    functions: Mapping[str, Mapping[str, Asked]]  # model -> source
    known: dict[Weights, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def means(self, weights: Weights) -> tuple[np.ndarray, np.ndarray]:
        """Mean nDCG@10 of files [models, repositories] and of functions [models, sources]."""
        if weights not in self.known:
            self.known[weights] = _means(self.files, weights), _means(self.functions, weights)
        return self.known[weights]


def _means(asked: Mapping[str, Mapping[str, Asked]], weights: Weights) -> np.ndarray:
    return np.array([[fmean(one.values(weights).values()) for one in of_model.values()] for of_model in asked.values()])


def ascend(measured: Measured, repositories: Sequence[int], start: Weights = CHOSEN) -> Weights:
    """The weights that rank the files of these repositories (numbers) best, without a loss in functions."""
    least = measured.means(NONE)[1]

    def objective(weights: Weights) -> float:
        files, functions = measured.means(weights)
        return float(files[:, list(repositories)].mean()) if np.all(functions >= least) else -1.0

    chosen, best = start, objective(start)
    for _ in range(ROUNDS):
        before = chosen
        for name, values in GRID.items():
            for value in values:
                tried = replace(chosen, **{name: value})
                if (found := objective(tried)) > best:
                    chosen, best = tried, found
        if chosen == before:
            break
    return chosen


def cross_validated(measured: Measured, *, folds: int, seed: int, say: Callable[[str], None] = print) -> dict:
    """{"folds": the weights of each, "files": {model: mean nDCG@10 of repositories that had no say in the weights}}."""
    count = len(next(iter(measured.files.values())))
    shuffled = np.random.default_rng(seed).permutation(count).tolist()
    held_out, chosen = np.empty((len(measured.files), count)), []
    for fold in range(folds):
        test = shuffled[fold::folds]
        weights = ascend(measured, [one for one in range(count) if one not in test])
        held_out[:, test] = measured.means(weights)[0][:, test]
        chosen.append(asdict(weights))
        say(f"fold {fold + 1} of {folds}: {weights}")
    return {"folds": chosen, "files": dict(zip(measured.files, held_out.mean(1).tolist(), strict=True))}
