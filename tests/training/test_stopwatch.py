"""Stages follow each other without a gap."""

from __future__ import annotations

import time

from training.stopwatch import Stopwatch


def test_the_stages_add_up_to_the_whole_time(monkeypatch):
    now = [10.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    stopwatch = Stopwatch()
    for stage, seconds in (("prepare", 3.0), ("train", 4.0), ("after", 0.5)):
        now[0] += seconds
        stopwatch.split(stage)
    assert stopwatch.seconds == {"prepare": 3.0, "train": 4.0, "after": 0.5}
    assert stopwatch.elapsed() == 7.5 and stopwatch.started == 10.0
