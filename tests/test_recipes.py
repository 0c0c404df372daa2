"""The recipes: each is accepted by the script that its comment names, and the template for base models is sound."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from common.options import parse_with_recipe
from data.masking import encode_prompt, supervise
from model import load_tokenizer

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Add one.</s>"},
    {"role": "assistant", "content": "x + 1"},
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_accepted_by_its_script(recipe):
    text = recipe.read_text()
    script = re.search(r"python (train_\w+)\.py --config (\S+)", text)
    assert script and script[2] == f"recipes/{recipe.name}"
    kind = importlib.import_module(script[1]).Options
    data = {"train_cpt": "--corpus"}.get(script[1], "--data")
    options = parse_with_recipe(kind, ["--config", str(recipe), data, "x", "--out", "y"]).values
    template = getattr(options, "chat_template", None)
    assert template is None or (ROOT / template).is_file()


def test_the_template_for_base_models_trains_the_answer_and_its_end(tokenizer_folder):
    tokenizer = load_tokenizer(str(tokenizer_folder), chat_template=ROOT / "recipes" / "instruction.jinja")
    text = tokenizer.render(MESSAGES)
    answer = "### Response:\nx + 1<|endoftext|>"
    assert text == f"Be brief.\n\n### Instruction:\nAdd one.</s>\n\n{answer}\n\n"
    assert tokenizer.render(MESSAGES[:2], add_generation_prompt=True) == text[: text.index("x + 1")]

    # what is learnt: the answer and the token that ends it; the prompt is a prefix of the whole
    whole = supervise(tokenizer, MESSAGES)
    learnt = [label for label in whole.labels if label >= 0]
    assert tokenizer.decode(learnt, keep_special=True) == "x + 1<|endoftext|>"
    prompt = encode_prompt(tokenizer, MESSAGES[:2])
    assert whole.input_ids[: len(prompt)] == prompt and tokenizer.eos_id in tokenizer.stop_ids
