"""The grid of the study: models, tasks, methods, and its runs in the order of their importance.

Every prefix of `plan` answers a question: first the methods on one task with one seed, then the other tasks, then the
seeds that make a difference believable, the second model, and the learning curves.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from training.methods import LEARNING_RATES

ZERO_SHOT, FEW_SHOT = "zero-shot", "few-shot"
SHOTS = 5
TRIED = (1, 3, 10)  # learning rates, in defaults of the method: these are of larger models, which take smaller steps
CURVES = ("lora-8", "full")  # methods that have a learning curve


@dataclass(frozen=True)
class Method:
    """What is trained. `arguments` of train_sft.py; `rates`: the peak learning rates that are tried."""

    name: str
    title: str
    arguments: tuple[str, ...]

    @property
    def rates(self) -> tuple[float, ...]:
        """As many for every method: the same budget."""
        return tuple(float(f"{times * LEARNING_RATES[self.arguments[1]]:.3g}") for times in TRIED)


@dataclass(frozen=True)
class Task:
    """What is learnt, and how much of it.

    published               rows of the published training, validation and test split
    rows, validation, test  rows to train on (the main size), to choose learning rates by, to measure on
    max_length              tokens of a row, and of a question; longer texts are cut at their end
    step_tokens             tokens of an optimiser step, in packed rows
    metric                  the one that is compared first, of `metrics`
    classical               the baseline without a language model that methods are compared with
    row_tokens              tokens of a training row on average
    answer_seconds          to answer a test row (experiments/study/schedule.py)
    curve                   further sizes of training, for the learning curves; None: all rows
    """

    name: str
    title: str
    kind: str
    source: str
    url: str
    license: str
    published: tuple[int | None, int | None, int | None]
    rows: int
    validation: int
    test: int
    max_length: int
    metric: str
    metrics: tuple[str, ...]
    classical: str | None
    row_tokens: int
    answer_seconds: float
    step_tokens: int
    epochs: int = 1
    curve: tuple[int | None, ...] = ()

    def rows_of(self, model: Model) -> int:
        """The main size for a model."""
        return max(1, round(self.rows * model.rows))


@dataclass(frozen=True)
class Model:
    """A model, and which part of the grid it takes. `rows`: share of a task's rows; `size`: seconds, of SmolLM2's."""

    name: str
    title: str
    family: str
    license: str
    is_instruct: bool
    tasks: tuple[str, ...]
    methods: tuple[str, ...]
    seeds: int | None = None  # how many of the seeds; None: all
    rows: float = 1.0
    size: float = 1.0


METHODS = {
    one.name: one
    for one in (
        Method("lora-8", "LoRA, r = 8", ("--method", "lora", "--r", "8", "--alpha", "16")),
        Method("full", "full fine-tuning", ("--method", "full")),
        Method("prefix", "prefix tuning, 20 tokens", ("--method", "prefix")),
        Method("prompt", "prompt tuning, 20 tokens", ("--method", "prompt")),
        Method("bottleneck", "bottleneck adapters, D / 16", ("--method", "bottleneck")),
        Method("ia3", "IA3", ("--method", "ia3")),
        Method("lora-32", "LoRA, r = 32", ("--method", "lora", "--r", "32", "--alpha", "64")),
    )
}
OF_LABELS = ("accuracy", "macro_f1", "likelihood_accuracy", "likelihood_macro_f1")
TASKS = {
    one.name: one
    for one in (
        Task(
            "trec", "TREC", "classification", "TREC question classification (Li & Roth 2002; Hovy et al. 2001)",
            "https://cogcomp.seas.upenn.edu/Data/QA/QC/", "none stated", published=(5452, None, 500),
            rows=600, validation=60, test=250, max_length=256, step_tokens=768, metric="accuracy", metrics=OF_LABELS,
            classical="TF-IDF + logistic regression", row_tokens=69, answer_seconds=0.2, curve=(100, 300, 1000, None),
        ),
        Task(
            "pubmedqa", "PubMedQA", "qa", "PubMedQA, labelled part (Jin et al. 2019, arXiv:1909.06146)",
            "https://github.com/pubmedqa/pubmedqa", "MIT", published=(500, None, 500),
            rows=100, validation=30, test=100, max_length=320, step_tokens=640, metric="accuracy", metrics=OF_LABELS,
            classical="TF-IDF + logistic regression", row_tokens=300, answer_seconds=0.7,
        ),
        Task(
            "scitldr", "SciTLDR", "summarization", "SciTLDR, abstracts (Cachola et al. 2020, arXiv:2004.15011)",
            "https://github.com/allenai/scitldr", "Apache-2.0", published=(1992, 619, 618),
            rows=100, validation=30, test=50, max_length=400, step_tokens=800, metric="rougeL",
            metrics=("rouge1", "rouge2", "rougeL", "bleu"), classical="lead-3", row_tokens=270, answer_seconds=0.9,
        ),
        Task(
            "code", "networkx, executed", "code", "bugs to fix and bodies to complete in networkx, run on its doctests",
            "https://networkx.org", "BSD-3-Clause", published=(None, None, None),
            rows=72, validation=20, test=40, max_length=768, step_tokens=768, metric="pass@1",
            metrics=("pass@1", "lenient_pass@1", "hallucination_rate"), classical=None, row_tokens=370,
            answer_seconds=2.0,
        ),
    )
}  # fmt: skip
SECOND = ("lora-8", "full", "prefix", "prompt")  # methods that models other than the first take
MODELS = {
    one.name: one
    for one in (
        Model("smollm2-135m", "SmolLM2-135M-Instruct", "Llama (architecture)", "Apache-2.0", True, tuple(TASKS),
              tuple(METHODS)),
        Model("Qwen/Qwen2.5-Coder-0.5B-Instruct", "Qwen2.5-Coder-0.5B-Instruct", "Qwen", "Apache-2.0", True,
              ("trec", "pubmedqa"), SECOND, seeds=1, rows=0.4, size=3.7),
        Model("Qwen/Qwen2.5-Coder-0.5B", "Qwen2.5-Coder-0.5B (base)", "Qwen", "Apache-2.0", False, ("trec", "pubmedqa"),
              SECOND, seeds=1, rows=0.4, size=3.7),
        Model("Qwen/Qwen3-0.6B", "Qwen3-0.6B", "Qwen", "Apache-2.0", True, ("trec", "pubmedqa"), SECOND, seeds=1,
              rows=0.4, size=4.5),
        Model("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "TinyLlama-1.1B-Chat", "Llama", "Apache-2.0", True,
              ("trec", "pubmedqa"), SECOND, seeds=1, rows=0.4, size=8.5),
        Model("deepseek-ai/deepseek-coder-1.3b-instruct", "DeepSeek-Coder-1.3B-Instruct", "DeepSeek",
              "DeepSeek model licence", True, ("trec", "pubmedqa"), SECOND, seeds=1, rows=0.4, size=10.0),
    )
}  # fmt: skip


# Everything once with a few rows: does it run? (--smoke)
SMOKE = {
    name: replace(task, rows=12, validation=3, test=4, curve=(6,) if task.curve else ()) for name, task in TASKS.items()
}


@dataclass(frozen=True)
class Run:
    """One cell of the grid.

    method     of METHODS, ZERO_SHOT or FEW_SHOT
    rows       training rows (None: all that there are); of an untrained model those that its shots are drawn from, and
               that the classical baselines learn from
    seed       of training; None: nothing is trained
    rate_from  the run whose learning rate it takes; None: it tries several and keeps the best
    """

    model: Model
    task: Task
    method: str
    rows: int | None
    seed: int | None = None
    rate_from: Run | None = None

    @property
    def is_trained(self) -> bool:
        """Whether it is of a method; else an untrained model answers."""
        return self.method in METHODS

    @property
    def is_main(self) -> bool:
        """Whether it is of the main size; else it belongs to a learning curve."""
        return self.rows == self.task.rows_of(self.model)

    @property
    def name(self) -> str:
        """For folders and progress: trec/lora-8/1000-rows/seed-0."""
        if not self.is_trained:
            return f"{self.task.name}/{self.method}"
        return f"{self.task.name}/{self.method}/{self.rows or 'all'}-rows/seed-{self.seed}"

    def folder(self, out: Path) -> Path:
        """Everything that it leaves."""
        return out / Path(self.model.name).name / self.name


def model_of(name: str) -> Model:
    """A model of the grid, or any other, which takes the whole grid."""
    return MODELS.get(name) or Model(name, Path(name).name, "other", "unknown", True, tuple(TASKS), tuple(METHODS))


def plan(models: Sequence[Model], tasks: Sequence[Task], methods: Collection[str], seeds: Sequence[int]) -> list[Run]:
    """The runs in their order: see the head of this file. The first model has every seed, and the learning curves."""
    first, *others = models
    tasks_of = {model.name: [task for task in tasks if task.name in model.tasks] for model in models}
    own = tasks_of[first.name]

    # the first model: a task after the other with the first seed, then the other seeds of the first task
    runs = []
    for task in own:
        tuned = _tuned(first, task, methods, seeds, seeds[:1])
        runs += [_untrained(first, task, ZERO_SHOT), *tuned, _untrained(first, task, FEW_SHOT)]
    runs += [run for task in own[:1] for run in _tuned(first, task, methods, seeds, seeds[1:])]

    # the other models, then the other seeds of the other tasks
    for model in others:
        for task in tasks_of[model.name]:
            runs += [_untrained(model, task, ZERO_SHOT), *_tuned(model, task, methods, seeds, seeds[: model.seeds])]
    for task in own[1:]:
        runs += _tuned(first, task, methods, seeds, seeds[1:])

    # learning curves; few-shot prompts of the larger models, which are long
    for task in own:
        curved = [one for one in _tuned(first, task, methods, seeds, seeds[:1]) if one.method in CURVES]
        runs += [replace(one, rows=rows, rate_from=one) for one in curved for rows in task.curve]
    return runs + [_untrained(model, task, FEW_SHOT) for model in others for task in tasks_of[model.name][:1]]


def _untrained(model: Model, task: Task, method: str) -> Run:
    return Run(model, task, method, task.rows_of(model))


def _tuned(
    model: Model, task: Task, methods: Collection[str], seeds: Sequence[int], chosen: Sequence[int]
) -> list[Run]:
    """A run for each of the chosen seeds and each method; the first of all seeds chooses the learning rates."""
    names = [name for name in METHODS if name in methods and name in model.methods]
    first = [Run(model, task, name, task.rows_of(model), seeds[0]) for name in names]
    return [run if seed == seeds[0] else replace(run, seed=seed, rate_from=run) for seed in chosen for run in first]
