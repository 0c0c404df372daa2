from __future__ import annotations

import torch

from eval.environment import FOLDERS, SOURCE, environment


def test_data_is_identified_by_hash_and_the_network_by_device_and_dtype():
    one = environment(torch.device("cpu"), torch.bfloat16, rows=[{"id": "a"}])
    assert one["device"].startswith("cpu: ") and one["dtype"] == "bfloat16" and one["torch"] == torch.__version__
    assert one["rows_sha256"] == environment(rows=[{"id": "a"}])["rows_sha256"]
    assert one["rows_sha256"] != environment(rows=[{"id": "b"}])["rows_sha256"]


def test_a_result_without_a_network_names_no_device():
    assert environment().keys().isdisjoint({"device", "dtype"}) and "source_sha256" in environment()


def test_the_source_hash_covers_every_package_that_a_result_can_depend_on():
    packages = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert packages - {"bench", "experiments", "notebooks", "paper"} == set(FOLDERS)
