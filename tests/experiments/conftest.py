"""Experiments run end to end on a tiny model, their stages in this process."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from experiments import pages, stages
from tests.commands import run


@pytest.fixture
def smoke(monkeypatch, tmp_path):
    """A function (experiment, *options) that runs its command with --smoke; returns results.json and its page."""
    commands = []

    def in_this_process(command, **settings):
        commands.append(command[1:])
        done = run(*command[1:])
        assert done.returncode == 0, (command, done.stderr)
        return done

    def smoke(name, *options):
        places = ("--out", tmp_path / "runs", "--results", tmp_path / name)
        done = run("-m", f"experiments.{name}.run", "--smoke", *places, *options)
        assert done.returncode == 0, done.stderr
        smoke.printed = done.stdout
        text = (tmp_path / name / "results.json").read_text()
        (tmp_path / name / "page.md.j2").write_text((stages.ROOT / "experiments" / name / "page.md.j2").read_text())
        monkeypatch.setattr(pages, "HERE", tmp_path)
        return json.loads(text), pages.rendered(name)

    smoke.commands, smoke.runs = commands, tmp_path / "runs"
    monkeypatch.setattr(stages, "subprocess", SimpleNamespace(run=in_this_process))
    return smoke
