"""What is installed where: `make` pins PyTorch, and nothing else touches one that is there."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]


def requirements(name: str) -> list[Requirement]:
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


@pytest.mark.parametrize("version", ["2.6.0", "2.6.0+cu124", "2.8.0+cu126", "2.13.0+cpu", "2.13.0"])
def test_a_pytorch_that_is_there_satisfies_the_requirements(version):
    (torch,) = [requirement for requirement in requirements("requirements.txt") if requirement.name == "torch"]
    assert torch.specifier.contains(version) and not torch.specifier.contains("2.5.1")
    for other in ROOT.glob("requirements-*.txt"):  # quickstart.py installs the extras by itself
        assert not [r.name for r in requirements(other.name) if r.name.startswith(("torch", "nvidia", "triton"))], other


def test_make_alone_pins_and_takes_any_build_of_the_version():
    (pinned,) = requirements("constraints.txt")
    assert pinned.name == "torch" and pinned.specifier.contains("2.13.0+cu126")
    paths = [*ROOT.glob("*.txt"), *ROOT.glob("*.py"), *ROOT.glob("*.toml"), ROOT / "Makefile"]
    naming = {path.name for path in paths if "constraints.txt" in path.read_text(encoding="utf-8")}
    assert naming == {"Makefile"}
