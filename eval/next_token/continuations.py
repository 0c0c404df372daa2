"""How base and tuned go on from a prompt: once greedily, once sampled."""

from __future__ import annotations

from eval.next_token.distributions import STATES, in_use, whole_text
from eval.next_token.prompts import Prompt
from lora.adapter import Adapter, folded
from model import Sampling, Stop, generate
from model.decoder import Decoder
from model.tokenizer import Tokenizer

HOW = ("greedy", "sample")


def continuations(
    decoder: Decoder,
    tokenizer: Tokenizer,
    adapter: Adapter,
    prompts: list[Prompt],
    *,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
) -> list[dict[str, dict[str, dict]]]:
    """Of each prompt, whole and up to its position of interest: state -> how -> {"text", "tokens", "stopped"}.

    state is one of STATES, how one of HOW; both states draw the same random numbers. The adapter is active afterwards.
    """
    if not prompts:
        return []  # without folding an adapter in for nothing
    stop = Stop(max_new_tokens=max_new_tokens, ids=tokenizer.stop_ids)
    sampling = Sampling([0.0, temperature], top_p=top_p, samples=len(HOW), seed=seed)
    found: list[dict] = [{} for _ in prompts]
    for state in STATES:
        with in_use(decoder, adapter, state), folded(decoder):
            new_ids = generate(
                decoder,
                [prompt.input_ids[: prompt.at] for prompt in prompts],
                stop,
                sampling,
                unused_ids=tokenizer.unused_ids,
                what=f"continuing, {state}",
            )
        for of_prompt, of_samples in zip(found, new_ids, strict=True):
            of_prompt[state] = {
                how: {"text": whole_text(tokenizer, ids), "tokens": len(ids), "stopped": len(ids) < max_new_tokens}
                for how, ids in zip(HOW, of_samples, strict=True)
            }
    return found
