import torch

from eval.environment import environment


def test_what_was_read_is_told_by_its_hash_and_what_computed_by_its_name():
    one = environment(torch.device("cpu"), torch.bfloat16, rows=[{"id": "a"}])
    assert one["device"].startswith("cpu: ") and one["dtype"] == "bfloat16" and one["torch"] == torch.__version__
    assert one["rows_sha256"] == environment(rows=[{"id": "a"}])["rows_sha256"]
    assert one["rows_sha256"] != environment(rows=[{"id": "b"}])["rows_sha256"]


def test_a_result_without_a_network_names_no_device():
    assert environment().keys().isdisjoint({"device", "dtype"}) and "source_sha256" in environment()
