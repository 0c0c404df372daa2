"""pyproject.toml is the one place that says what is installed; `make` alone pins PyTorch."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import quickstart
from tests.mypy_ratchet import judge

tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CORE = [Requirement(text) for text in PROJECT["dependencies"]]
EXTRAS = {name: [Requirement(text) for text in texts] for name, texts in PROJECT["optional-dependencies"].items()}


def test_the_core_requirements_are_the_six():
    assert [r.name for r in CORE] == ["torch", "tokenizers", "safetensors", "numpy", "hnswlib", "tqdm"]


@pytest.mark.parametrize("version", ["2.6.0", "2.6.0+cu124", "2.8.0+cu126", "2.13.0+cpu", "2.13.0"])
def test_an_installed_pytorch_satisfies_the_requirements(version):
    (torch,) = [requirement for requirement in CORE if requirement.name == "torch"]
    assert torch.specifier.contains(version) and not torch.specifier.contains("2.5.1")
    for name, requirements in EXTRAS.items():  # quickstart.py installs the extras itself
        assert not [r.name for r in requirements if r.name.startswith(("torch", "nvidia", "triton"))], name


def test_only_make_pins_and_it_takes_any_build_of_the_version():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    (pinned,) = [Requirement(line) for line in lines if not line.startswith("#")]
    assert pinned.name == "torch" and pinned.specifier.contains("2.13.0+cu126")
    paths = [*ROOT.glob("*.txt"), *ROOT.glob("*.py"), ROOT / "Makefile"]
    naming = {path.name for path in paths if "constraints.txt" in path.read_text(encoding="utf-8")}
    assert naming == {"Makefile"}


def test_requirements_stand_in_one_place():
    """A requirements file is the name of an extra, for those who install by `pip install -r`."""
    files = list(ROOT.glob("requirements*.txt"))
    lines = {line for file in files for line in file.read_text(encoding="utf-8").splitlines() if line[:1] != "#"}
    assert lines == {"-e .", *(f"-e .[{name}]" for name in EXTRAS)}


def test_what_the_notebooks_install_is_what_pyproject_allows():
    lines = (ROOT / "notebooks" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    allowed = {r.name: r.specifier for r in [*CORE, *EXTRAS["extras"]]}
    for line in (Requirement(line) for line in lines if not line.startswith("#")):
        if line.name in ("torch", "numpy"):  # as they are where they are there
            assert line.specifier == allowed[line.name]
        else:
            ((pin,), at) = line.specifier, allowed[line.name]
            assert pin.operator == "==" and at.contains(pin.version)
    assert {r.name for r in CORE} <= {Requirement(line).name for line in lines if not line.startswith("#")}


def test_every_extra_that_is_named_exists():
    installs = re.findall(r"\.venv/\.(\w+)$|\.venv/\.(\w+) ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert {name for names in installs for name in names if name} == EXTRAS.keys()
    for name, requirements in EXTRAS.items():
        inner = [extra for r in requirements if r.name == PROJECT["name"] for extra in sorted(r.extras)]
        of_ours = {"extras": [], "paper": [], "notebooks": ["extras"], "dev": ["extras", "notebooks", "paper"]}
        assert inner == of_ours.get(name, ["dev"])
    assert {name.replace("_", "-") for name in quickstart.EXTRAS} <= {r.name for r in EXTRAS["extras"]}


def test_installing_puts_no_module_on_the_path():
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    assert setuptools == {"packages": [], "py-modules": []}


def test_the_count_of_type_errors_only_falls():
    lines = ["a.py:1: error: x  [y]", "a.py:1: note: z", "b.py:2: error: x  [y]", "Found 2 errors in 2 files"]
    assert judge(lines, {"a.py": 1, "b.py": 3, "c.py": 2}) == ([], {"a.py": 1, "b.py": 1})
    assert judge(lines, {"b.py": 1}) == ([lines[0]], {"b.py": 1})
