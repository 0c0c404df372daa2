"""--method: the learning rate of each, and the options that only some of them have.

The rates are peaks, as published for each method, here of AdamW; --sweep finds a better one for the data at hand.
"""

from __future__ import annotations

import math

from common.console import UserError
from common.options import Resolved

# A method with fewer trainable parameters needs larger steps.
LEARNING_RATES = {
    "lora": 2e-4,  # QLoRA (arXiv:2305.14314), for models of up to 13 billion parameters
    "bottleneck": 1e-4,  # AdapterHub's documentation: "works well for most settings"
    "ia3": 3e-3,  # its paper, arXiv:2205.05638 (by Adafactor)
    "bitfit": 1e-3,  # the command of its authors' repository (arXiv:2106.10199)
    "prefix": 5e-3,  # the commands of P-Tuning v2's repository: 5e-3 to 7e-3. With an MLP, Li & Liang train at 5e-5
    "prompt": 3e-2,  # PEFT's guide; Lester et al. (arXiv:2104.08691) have 0.3, but with Adafactor and T5's embeddings
    "full": 2e-5,  # Stanford Alpaca
}
# Where a track differs: measured on the data of its experiments.
OF_TRACK = {"cpt": {"lora": 4e-4}, "embed": {"lora": 1e-4, "full": 1e-4}}

# Options that do not go with every method, and the methods that have them.
ONLY_WITH = {
    **dict.fromkeys(
        ("r", "alpha", "dropout", "targets", "rank_pattern", "alpha_pattern", "rslora", "dora", "lora_plus_ratio"),
        ("lora",),
    ),
    **dict.fromkeys(("placement", "reduction_factor", "activation"), ("bottleneck",)),
    **dict.fromkeys(("virtual_tokens", "init_text", "random_init"), ("prefix", "prompt")),
    "prefix_mlp": ("prefix",),
    "quantize": tuple(method for method in LEARNING_RATES if method != "full"),  # frozen layers alone are quantised
    "top_layers": ("full",),
}


def with_method(resolved: Resolved, track: str) -> Resolved:
    """The options of a run with a learning rate: the method's if none was given.

    track  "cpt", "sft" or "embed"
    Raises UserError for an option that was given and that the method does not have.
    """
    method = resolved.values.method
    for name, methods in ONLY_WITH.items():
        source, value = resolved.sources.get(name, "default"), getattr(resolved.values, name, None)
        # what switches an option off goes with every method
        if source == "default" or method in methods or value in (None, False, 0, "none"):
            continue
        where = "" if source == "command line" else f"{source}: "
        raise UserError(
            f"{where}--{name.replace('_', '-')} does not go with --method {method}, but with {' or '.join(methods)}"
        )
    # --sweep, which track C does not have, replaces --lr
    if sweep := getattr(resolved.values, "sweep", None):
        learning_rates(sweep)
        if resolved.values.lr is not None:
            raise UserError("--sweep chooses the learning rate; omit --lr")
    if resolved.values.lr is not None:
        return resolved
    return resolved.with_values(f"--method {method}", lr=default_learning_rate(method, track))


def default_learning_rate(method: str, track: str) -> float:
    """The peak learning rate of a run without --lr."""
    return OF_TRACK.get(track, {}).get(method, LEARNING_RATES[method])


def learning_rates(sweep: str) -> list[float]:
    """The learning rates of --sweep. UserError unless they are two or more."""
    name, _, values = sweep.partition("=")
    try:
        rates = [float(value) for value in values.split(",")]
    except ValueError:
        rates = []
    if name != "lr" or len(set(rates)) < 2 or not all(0 < rate < math.inf for rate in rates):
        raise UserError(f"--sweep {sweep}: should be two or more learning rates, such as lr=1e-4,3e-4,1e-3")
    return list(dict.fromkeys(rates))
