"""How well search.py ranks on semble's benchmark of repositories, what each rule is worth, and how weights were chosen.

    python -m experiments.code_search.run --benchmark DIR --repositories DIR --out runs/code_search

DIR of --benchmark is the benchmark's own folder (github.com/MinishLab/semble, benchmarks/), DIR of --repositories has a
checkout of each repository under its name; those that are missing are left out. Beside it, docstrings ask for their
functions in two other repositories: the rules must not make these harder to find. Existing indexes are used again.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from common.console import run_command
from common.files import read_jsonl, write_json, write_text
from common.options import as_settings, option, parse
from data.search.contents import read_contents
from data.search.index import build_index
from data.search.ranking import CHOSEN, NONE, Weights
from data.search.update import earlier_index, update_by_encoder
from eval.charts import interval_picture
from eval.environment import environment
from eval.stats import paired_change, summarise
from experiments.code_search.choose import Measured, cross_validated
from experiments.code_search.peer import semble_values
from experiments.code_search.queries import Asked, Repository, docstring_queries, pools_of, read_benchmark
from experiments.stages import run_stages, stage
from model import load_encoder
from model.distil import cached_table

METRIC = "ndcg@10"
PUBLISHED = {  # semble's benchmarks/README.md, 2026-10, over all its 1,258 queries of 62 repositories
    "BM25": 0.675, "static table": 0.650, "CodeRankEmbed": 0.762, "semble": 0.852, "CodeRankEmbed + words": 0.860,
}  # fmt: skip
RULES = [name for name, value in asdict(NONE).items() if value != getattr(CHOSEN, name)]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of this experiment."""

    benchmark: Path = option(help="folder with repos.json and annotations/", metavar="DIR")
    repositories: Path = option(help="folder with a checkout of each repository", metavar="DIR")
    models: tuple[str, ...] = option(("all-minilm-l6-v2",), "encoders; each is measured by its static table as well")
    tables: bool = option(False, "measure the static tables alone")
    peer: bool = option(False, "also ask the package semble, with the same static tables")
    functions: tuple[str, ...] = option(
        ("package:networkx", "pypi:werkzeug==3.1.3"), "SOURCES whose docstrings ask for their functions"
    )
    folds: int = option(5, "of the cross-validation over repositories (0: none)", least=0)
    seed: int = option(0, "seed of every draw")
    out: Path = option(Path("runs/code_search"), "folder of the indexes", metavar="DIR")
    results: Path = option(Path("experiments/code_search"), "folder for results.json and the figures", metavar="DIR")


def main() -> None:
    """Index what is not indexed, ask all queries, write results.json and the figures."""
    options = parse(Options, description=__doc__)
    repositories = read_benchmark(options.benchmark, options.repositories)
    pairs = {source: options.out / "pairs" / str(number) for number, source in enumerate(options.functions)}
    run_stages(
        [
            stage(
                to / "about.json", "-m", "data.pairs", source, "--out", to, "--test-count", 300, "--seed", options.seed
            )
            for source, to in pairs.items()
        ]
    )

    files: dict[str, dict[str, Asked]] = {}
    functions: dict[str, dict[str, Asked]] = {}
    for title, model in models_of(options).items():
        encoder = load_encoder(model)
        indexes = options.out / "indexes" / title.replace("/", "_")
        files[title] = {one.name: ask(one, encoder, indexes / one.name) for one in repositories}
        functions[title] = {
            source: ask_for_functions(folder, encoder, indexes / folder.name) for source, folder in pairs.items()
        }
    peers = {}
    if options.peer:
        for title, table in models_of(replace(options, tables=True)).items():
            peers[title] = {
                query: value
                for one in repositories
                for query, value in semble_values(
                    one.folder, Path(table), [pool.query for pool in files[title][one.name].pools]
                ).items()
            }
    write_results(options, repositories, Measured(files, functions), peers)


def models_of(options: Options) -> dict[str, str]:
    """Title -> what load_encoder takes: each model and its static table."""
    tables = {f"static table of {model}": str(cached_table(model)) for model in options.models}
    return tables if options.tables else {model: model for model in options.models} | tables


def ask(repository: Repository, encoder, index: Path) -> Asked:
    """Index a repository as search.py does, and ask its queries."""
    earlier, _ = earlier_index(index)
    if earlier is None:
        contents = read_contents(str(repository.folder))
        update_by_encoder(index, contents, encoder, earlier=None)
    return pools_of(index, encoder, repository.queries)


def ask_for_functions(pairs: Path, encoder, index: Path) -> Asked:
    """Index the candidates of a folder of data.pairs, and ask its test queries."""
    if earlier_index(index)[0] is None:
        units = read_jsonl(pairs / "candidates.jsonl")
        vectors = encoder.encode([unit["code"] for unit in units], kind="passage").numpy()
        build_index(index, vectors, units, manifest=encoder.identity())
    return pools_of(index, encoder, docstring_queries(pairs))


def systems() -> dict[str, Weights]:
    """What is compared: meaning and words alone, each rule by itself, all rules, all but one."""
    alone = {f"{rule} alone": replace(NONE, **{rule: getattr(CHOSEN, rule)}) for rule in RULES if rule != "words"}
    without = {f"without {rule}": replace(CHOSEN, **{rule: getattr(NONE, rule)}) for rule in RULES if rule != "words"}
    return {"no rules": NONE, **alone, "all rules": CHOSEN, **without}


def write_results(
    options: Options, repositories: list[Repository], measured: Measured, peers: Mapping[str, dict[str, float]]
) -> None:
    """results.json and a picture of the changes for each model. peers: title -> semble's values with the same table."""
    models = {title: of_model(of_files, measured.functions[title]) for title, of_files in measured.files.items()}
    for title, values in peers.items():
        ours = _joined(measured.files[title], CHOSEN)
        told = summarise({METRIC: values})
        models[title]["semble"] = {"files": told["metrics"][METRIC], "interval": told["intervals"][METRIC]}
        models[title]["semble"] |= {"n": len(values), "ours_against_it": paired_change(values, ours)}
    found = {
        "schema": 1,
        "settings": as_settings(options, without=("out", "results", "benchmark", "repositories")),
        "published": PUBLISHED,
        "weights": asdict(CHOSEN),
        "repositories": [
            {"name": one.name, "language": one.language, "revision": one.revision, "queries": len(asked.pools)}
            | {"units": len(asked.units)}
            for one, asked in zip(repositories, next(iter(measured.files.values())).values(), strict=True)
        ],
        "models": models,
        "environment": environment(),
        "cross_validation": cross_validated(measured, folds=options.folds, seed=options.seed)
        if options.folds
        else None,
    }
    write_json(options.results / "results.json", found)
    for number, (title, one) in enumerate(models.items()):
        print(f"{title}: " + ", ".join(f"{name} {row['files']:.3f}" for name, row in one["systems"].items()))
        picture = interval_picture(
            {name: {METRIC: row["change"]} for name, row in one["systems"].items() if "change" in row}
        )
        write_text(options.results / f"changes-{number}.svg", picture)


def of_model(files: Mapping[str, Asked], functions: Mapping[str, Asked]) -> dict:
    """{"systems": {name: figures}, "categories", "repositories"}: means, intervals, paired changes against no rules."""
    values = {name: _joined(files, weights) for name, weights in systems().items()}
    of_functions = {
        name: {s: one.values(weights) for s, one in functions.items()} for name, weights in systems().items()
    }
    rows = {}
    for name, of_queries in values.items():
        told = summarise({METRIC: of_queries})
        row: dict = {"files": told["metrics"][METRIC], "interval": told["intervals"][METRIC], "n": len(of_queries)}
        row["functions"] = {source: _mean(one) for source, one in of_functions[name].items()}
        if name != "no rules":
            row["change"] = paired_change(values["no rules"], of_queries)
            row["functions_change"] = {
                source: paired_change(of_functions["no rules"][source], one)
                for source, one in of_functions[name].items()
            }
        rows[name] = row
    category = {pool.query.id: pool.query.category for asked in files.values() for pool in asked.pools}
    kinds = {kind: [i for i in category if category[i] == kind] for kind in dict.fromkeys(category.values())}
    chosen = values["all rules"]
    return {
        "systems": rows,
        "categories": {
            kind: {"n": len(ids), "no rules": _mean({i: values["no rules"][i] for i in ids})}
            | {"all rules": _mean({i: chosen[i] for i in ids})}
            for kind, ids in kinds.items()
        },
        "repositories": {name: _mean(asked.values(CHOSEN)) for name, asked in files.items()},
    }


def _joined(files: Mapping[str, Asked], weights: Weights) -> dict[str, float]:
    return {query: value for asked in files.values() for query, value in asked.values(weights).items()}


def _mean(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values)


if __name__ == "__main__":
    sys.exit(run_command(main))
