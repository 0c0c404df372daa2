import hashlib
import os
import subprocess
import sys

import pytest

from data.corpus.examine import Request, Rules, examine, examine_all, read_again
from tests.commands import ROOT

CODE = "\n".join(f"name_{i} = {i}" for i in range(12)) + "\n"


def request(tmp_path, name="a.py", text=CODE, license="MIT"):
    path = tmp_path / name
    path.write_text(text)
    return Request(str(path), name, "python", license)


def test_what_is_kept_is_known_by_hash_length_and_licence(tmp_path):
    text = "# SPDX-License-Identifier: ISC\n# jane@uni.museum\n" + CODE
    finding = examine(request(tmp_path, text=text), Rules())
    written = text.replace("jane@uni.museum", "<EMAIL>")
    assert (finding.reason, finding.license, finding.redacted) == (None, "ISC", {"EMAIL": 1})
    assert finding.sha256 == hashlib.sha256(written.encode()).hexdigest()
    assert finding.tokens == 8 + 4 + 12 * 3  # "#", "SPDX", "-", "License" … "#", "<", "EMAIL", ">"
    assert len(finding.signature) == 1020
    assert read_again(request(tmp_path, text=text), True) == written


def test_personal_data_stay_when_they_are_asked_for(tmp_path):
    text = "# jane@uni.museum\n" + CODE
    finding = examine(request(tmp_path, text=text), Rules(redact=False))
    assert finding.redacted == {} and finding.sha256 == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("text", "license", "reason"),
    [
        (CODE, "MIT", None),
        (CODE, "GPL-3.0-only", "licence not allowed"),
        (CODE, None, "licence not allowed"),
        ("# SPDX-License-Identifier: MIT\n" + CODE, "GPL-3.0-only", None),
    ],
)
def test_a_licence_must_be_among_those_that_are_allowed(tmp_path, text, license, reason):
    assert examine(request(tmp_path, text=text, license=license), Rules(licenses=("MIT",))).reason == reason


def test_a_large_file_is_not_read(tmp_path):
    finding = examine(request(tmp_path, text="x = 1\n" * 200_000), Rules())
    assert (finding.reason, finding.detail, finding.sha256) == ("too large", "1200000 bytes", None)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "folder.py").mkdir()
    for name in ("pipe.py", "folder.py", "gone.py"):
        finding = examine(Request(str(tmp_path / name), name, "python", None), Rules())
        assert finding.reason == "not readable" and finding.detail


def test_processes_find_the_same_in_the_same_order(tmp_path, capfd):
    task = "stolen_one = " + " + ".join(f"stolen_{c}" for c in "abcdefghijkl")
    texts = [
        CODE,
        "def f(:\n",
        CODE + "# jane@uni.museum\n",
        CODE + task + "\n",
        "x = 1\n",
        CODE * 2,
        CODE,
    ]
    requests = [request(tmp_path, f"m{i}.py", text) for i, text in enumerate(texts)]
    rules = Rules(licenses=("MIT",), tasks=[("T/1", task)])
    alone = list(examine_all(requests, rules, processes=1))
    assert [one.reason for one in alone] == [None, "does not parse", None, "benchmark task", "too short", None, None]
    assert list(examine_all(requests, rules, processes=3)) == alone
    assert list(examine_all(requests[:1], rules, processes=3)) == alone[:1]  # more processes than files
    assert capfd.readouterr().err == ""


def test_a_process_that_ends_is_an_error_and_leaves_none_behind(tmp_path):
    good, bad = request(tmp_path), Request(str(tmp_path / "a.py"), "a.py", "no such grammar", None)
    with pytest.raises(RuntimeError, match="has ended"):
        list(examine_all([good, bad], Rules(), processes=2))


@pytest.mark.parametrize("module", ["data.corpus.examine", "data.search.contents"])
def test_a_process_that_reads_files_does_not_wait_for_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
