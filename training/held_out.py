"""The held-out tasks of track B: refused before anything is trained, answered and graded before and after.

A test file holds one of two kinds: instruction pairs with checks, which are executed (eval/instruct), or text rows,
which are graded by their references and judged beside baselines (eval/text).
"""

from __future__ import annotations

from dataclasses import dataclass

from common.console import UserError
from common.files import write_json
from common.options import option
from data.masking import encode_prompt
from data.rows import conversation_of, named_line
from data.text_rows import common_task, task_of
from eval.failure_causes import failures
from eval.instruct import answer_pairs, grade_answers
from eval.instruct.samples import answers_as_markdown
from eval.text.ask import TextTasks, ask, text_tasks
from eval.text.baselines import baselines
from eval.text.causes import failures as text_failures
from eval.text.samples import answers_as_markdown as text_answers_as_markdown
from eval.text.tasks import NEW_TOKENS, read_training_tasks
from lora.adapter import folded
from model.decoder import Decoder
from model.generate import positions_of
from model.tokenizer import Tokenizer
from training.precision import Precision
from training.run import Run
from training.shared_options import DATA, MEASURING, DecoderOptions

EXECUTED_TOKENS = 256  # of an answer to an executed task at most


@dataclass(frozen=True, kw_only=True)
class HeldOutOptions(DecoderOptions):
    """How the held-out tasks are asked."""

    test: str | None = option(
        None, "held-out rows, answered and graded before and after: pairs with checks, or text rows", DATA,
        metavar="FILE",
    )  # fmt: skip
    max_length: int = option(
        2048, "tokens of a pair and of a packed row; longer pairs are cut at the end, text rows before their answer",
        DATA, least=2,
    )  # fmt: skip
    samples: int = option(10, "sampled answers per executed task, for pass@3 (at least 4; 0: none)", MEASURING)
    sampled_tasks: int | None = option(
        None, "test tasks that are also sampled, executed ones first (default: all)", MEASURING, least=1
    )
    temperature: float = option(0.8, "temperature of the sampled answers", MEASURING)
    top_p: float = option(0.95, "nucleus (top-p) of the sampled answers", MEASURING)
    max_new_tokens: int | None = option(
        None, f"tokens of an answer at most (default: {EXECUTED_TOKENS}; of text rows "
        f"{', '.join(f'{task} {count}' for task, count in NEW_TOKENS.items())})", MEASURING, least=1,
    )  # fmt: skip
    calibrate: bool = option(False, "divide the likelihood of a label by its likelihood without a text", MEASURING)


@dataclass(frozen=True)
class HeldOut:
    """The rows of a test file.

    text   text rows as tasks for the model; None: pairs with checks
    train  the training rows, of text rows those of the same task, as tasks: what the baselines learn from, and what a
           failure is compared with
    """

    rows: list[dict]
    text: TextTasks | None
    train: list[dict]

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.rows)


def held_out_tasks(
    rows: list[dict], train: list[dict], tokenizer: Tokenizer, decoder: Decoder, options: HeldOutOptions
) -> HeldOut:
    """The rows of --test, ready to be asked. UserError for one that cannot be, or cannot be graded."""
    task = common_task(rows)
    if task is None:
        if options.calibrate:
            raise UserError("--calibrate is for text rows with labels; --test has none")
        refuse_bad_pairs(rows, tokenizer, decoder, options)
        return HeldOut(rows, None, train)
    asked = text_tasks(
        decoder, tokenizer, task, rows, where=str(options.test), max_length=options.max_length,
        max_new_tokens=options.max_new_tokens, calibrate=options.calibrate,
    )  # fmt: skip
    alike = read_training_tasks([row for row in train if task_of(row) == task])
    cut = f" · {asked.shortened} texts cut at their end to fit" if asked.shortened else ""
    print(f"test     {len(rows)} rows of {task}{cut}")
    return HeldOut(rows, asked, alike)


def refuse_bad_pairs(rows: list[dict], tokenizer: Tokenizer, decoder: Decoder, options: HeldOutOptions) -> None:
    """UserError for a test task that cannot be graded, or whose prompt leaves no room for the answer."""
    if rows and 1 <= options.samples <= 3:
        raise UserError(f"--samples {options.samples}: pass@3 needs at least 4; give 0 to omit it")

    # each task: the fields that grading reads, and a prompt that leaves room for its answer
    new_tokens = options.max_new_tokens or EXECUTED_TOKENS
    room = decoder.max_tokens - new_tokens
    for number, row in enumerate(rows, 1):
        missing = [key for key in ("id", "category", "instruction", "input", "check") if key not in row]
        if missing:
            kind = "a text row among other rows" if task_of(row) else f"{', '.join(missing)} missing"
            raise UserError(f"{options.test}:{number}: {kind}: only pairs with a check, or text rows, can be graded")
        with named_line(f"{options.test}:{number}"):
            question = conversation_of(row).question
            tokens = len(encode_prompt(tokenizer, question.messages, tools=question.tools))
        if tokens > room:
            raise UserError(
                f"{options.test}:{number}: a prompt of {tokens} tokens and an answer of {new_tokens} "
                f"exceed {positions_of(decoder)}; see --max-new-tokens"
            )


def evaluate(
    decoder: Decoder, tokenizer: Tokenizer, held_out: HeldOut, precision: Precision, options: HeldOutOptions
) -> dict:
    """The eval result of the model on the held-out tasks: executed ones answered greedily and --samples times sampled,
    text tasks greedily and by likelihood.
    """
    # as the saved adapter will compute; folding it into the weights makes generation faster
    with precision.as_loaded(decoder), folded(decoder):
        if held_out.text:
            return ask(decoder, tokenizer, held_out.text, seed=options.seed)
        answers = answer_pairs(
            decoder, tokenizer, held_out.rows, samples=options.samples, temperature=options.temperature,
            top_p=options.top_p, max_new_tokens=options.max_new_tokens or EXECUTED_TOKENS, seed=options.seed,
            sampled=options.sampled_tasks, where=str(options.test),
        )  # fmt: skip
    return grade_answers(held_out.rows, answers)


def write_before(run: Run, result: dict, held_out: HeldOut, options: HeldOutOptions) -> None:
    """before.json; of text rows with what needs no language model, measured once on the same rows."""
    if held_out.text:
        text = held_out.text
        beside, missing = baselines(text.task, held_out.train, text.tasks, seed=options.seed)
        result |= {"baselines": beside, "baselines_missing": missing}
        for line in missing:
            print(f"note     no baseline of {line}")
    write_json(run.folder / "before.json", result)


def write_after(run: Run, result: dict, held_out: HeldOut, options: HeldOutOptions) -> None:
    """after.json, failures.json with the nearest training rows, and samples.md."""
    if held_out.text:
        tasks = held_out.text.tasks
        failed = text_failures(tasks, result["results"], seed=options.seed, train=held_out.train)
        samples = text_answers_as_markdown(tasks, result["results"])
    else:
        failed = failures(held_out.rows, result["results"], seed=options.seed, train=held_out.train)
        samples = answers_as_markdown(held_out.rows, result["results"])
    write_json(run.folder / "after.json", result)
    write_json(run.folder / "failures.json", failed)
    run.add_samples(None, samples)
