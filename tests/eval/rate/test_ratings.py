from __future__ import annotations

import hashlib
import json
import time

import pytest

from common.console import run_command
from common.files import read_json, write_json
from eval.compare import compare
from eval.rate.__main__ import main
from eval.rate.ratings import QUESTIONS, read_ratings, summarise, table
from tests.browser import open_browser
from tests.commands import PATIENCE

HOSTILE = "<script>document.title = 'owned'</script><!-- </script>\n\ndef f():\n    return 1\n"


@pytest.fixture
def rated(tmp_path, result, monkeypatch):
    """The folder of a result of three answers, one hostile, and of its tasks; `run` is the command on it."""
    answers = result("model-x", count=2) | {"settings": {"data": str(tmp_path / "data.jsonl")}}
    answers["results"][0]["output"] = HOSTILE
    write_json(tmp_path / "a.json", answers)
    rows = [{"id": i, "instruction": f"Do {i}.", "input": "", "output": "x"} for i in ("t0", "t1", "same")]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(*arguments) -> int:
        monkeypatch.setattr("sys.argv", ["rate", str(tmp_path / "a.json"), *map(str, arguments)])
        return run_command(main)

    return tmp_path, run


def ratings_of(folder, rater, *rows, sha256=None) -> str:
    sha256 = sha256 or hashlib.sha256((folder / "a.json").read_bytes()).hexdigest()
    saved = {"rated_sha256": sha256, "rater": rater, "ratings": [{"id": i, **given} for i, given in rows]}
    write_json(folder / f"{rater}.json", saved)
    return str(folder / f"{rater}.json")


def scored(clarity, readability=None, adherence=None) -> dict:
    return {k: v for k, v in zip(QUESTIONS, (clarity, readability, adherence), strict=True) if v is not None}


def test_a_rater_rates_by_keyboard_without_a_server_and_the_command_reads_what_is_saved(rated, capsys):
    folder, run = rated
    assert run("--page", folder / "rate.html") == 0 and "3 of 3 answers" in capsys.readouterr().out
    assert "a.json" not in (folder / "rate.html").read_text()  # the page does not say whose answers these are
    with open_browser(folder / "profile") as browser:
        browser("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
        browser.open((folder / "rate.html").as_uri())
        count = "document.getElementById('count').textContent"
        asked = "document.getElementById('asked').textContent"
        assert browser.value(count) == "answer 1 of 3 · 0 of 9 ratings"

        # every key: rating, undoing, going on and back; an answer whose ratings are complete gives way to the next
        for key, done, question in [
            ("4", 1, "readability"), ("2", 2, "adherence"), ("Backspace", 1, "readability"), ("3", 2, "adherence"),
            ("6", 2, "adherence"), ("5", 3, "clarity"), ("ArrowLeft", 3, None), ("ArrowRight", 3, "clarity"),
            ("1", 4, "readability"),
        ]:  # fmt: skip
            browser.press(key)
            assert f"· {done} of 9 ratings" in browser.value(count)
            assert browser.value(asked) == (QUESTIONS[question] if question else "Rated. Go on to the next answer.")
        adherence = "document.querySelector('[data-question=adherence]')"
        browser.value(f"{adherence}.querySelector('button:nth-of-type(2)').click()")
        assert browser.value(f"{adherence}.querySelector('[aria-pressed=true]').textContent") == "2"

        # a reload loses nothing; without a name nothing is saved
        browser.press("s")
        assert "name" in browser.value("document.getElementById('trouble').textContent")
        browser("Input.insertText", text="Ann B/1")  # into the field of the name, which now has the focus
        browser.press("5")
        assert "5 of 9" in browser.value(count)  # typed into the name: no rating
        browser.value("document.activeElement.blur()")
        browser.press("s")
        saved = folder / "ratings-Ann-B-1.json"
        until = time.monotonic() + PATIENCE
        while not saved.exists() and time.monotonic() < until:
            time.sleep(0.05)
        browser.open((folder / "rate.html").as_uri() + "?again")
        assert "5 of 9" in browser.value(count) and browser.value("document.getElementById('rater').value") == "Ann B/1"

        # what a model wrote is text, and nothing came from elsewhere
        assert browser.value("document.title") == "How good is the answer?" and browser.errors == []
        assert all(url.startswith(("file:", "data:", "blob:")) for url in browser.asked)

    assert run("--ratings", saved, "--out", folder / "rated.json") == 0
    given = read_json(folder / "rated.json")
    assert sorted(value for row in given["results"] for value in row["ratings"]["Ann B/1"].values()) == [1, 2, 3, 4, 5]
    assert given["n"] == 2 and given["settings"]["ratings"] == [str(saved)]
    assert "clarity      2.50 of 5" in capsys.readouterr().out


@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_is_light_or_dark_and_fits_a_phone(rated, width):
    folder, run = rated
    run("--page", folder / "rate.html", "--count", 2)
    with open_browser(folder / "profile") as browser:
        colours = {}
        for scheme in ("light", "dark"):
            browser.show(width=width, scheme=scheme)
            browser.open((folder / "rate.html").as_uri())
            rgb = browser.value("getComputedStyle(document.querySelector('.votes')).backgroundColor")
            colours[scheme] = sum(map(int, rgb.removeprefix("rgb(").rstrip(")").split(",")[:3]))
            assert browser.value("document.documentElement.scrollWidth <= innerWidth")
        assert colours["dark"] < 200 < 600 < colours["light"]
        assert browser.value("document.getElementById('prompt').textContent.startsWith('Do ')")


def test_ratings_become_means_with_intervals_and_two_raters_an_agreement(rated):
    folder, _ = rated
    answers = {f"t{i}": "" for i in range(6)}
    files = [
        ratings_of(folder, "ann", *((f"t{i}", scored(value, 3)) for i, value in enumerate([1, 2, 3, 4, 5, 5]))),
        ratings_of(folder, "bob", *((f"t{i}", scored(value)) for i, value in enumerate([1, 2, 4, 4, 5, 3]))),
    ]
    sha256 = hashlib.sha256((folder / "a.json").read_bytes()).hexdigest()
    result = summarise(read_ratings(files, answers, rated=sha256))
    assert result["values"]["clarity"] == {"t0": 1, "t1": 2, "t2": 3.5, "t3": 4, "t4": 5, "t5": 4}
    assert result["metrics"]["clarity"] == pytest.approx(19.5 / 6) and result["n_of"] == {
        "clarity": 6,
        "readability": 6,
    }
    low, high = result["intervals"]["clarity"]
    assert 1 < low < 19.5 / 6 < high < 5
    assert result["raters"]["ann"] == {"clarity": pytest.approx(20 / 6), "readability": 3}
    shared = result["agreement"]["clarity"]
    assert (shared["n"], shared["equal"], shared["within_one"]) == (6, 4 / 6, 5 / 6) and 0.5 < shared["alpha"] < 1
    assert result["agreement"]["readability"] == {"n": 0, "equal": None, "within_one": None, "alpha": None}
    assert "raters equal on 67%, within one on 83%, alpha" in table(result)


def test_two_rated_results_are_compared_task_by_task(rated):
    """Ratings of 1 are no failures of a yes-or-no test: the intervals resample tasks."""
    of_raters = [{"ann": {f"t{i}": scored(value) for i in range(8)}} for value in (1, 2)]
    before, after = (summarise(of) for of in of_raters)
    assert before["intervals"]["clarity"] == [1, 1]
    assert compare(before, after)["clarity"]["value"] == 1 and compare(before, after)["clarity"]["distinguishable"]


@pytest.mark.parametrize(
    ("rows", "sha256", "reason"),
    [
        ([("t0", scored(6))], None, "clarity must be a whole number from 1 to 5, not 6"),
        ([("t0", scored(2.5))], None, "must be a whole number"),
        ([("t0", scored(True))], None, "must be a whole number"),
        ([("t9", scored(1))], None, "no answer to t9"),
        ([("t0", scored(1))], "0" * 64, "of another result"),
        ([], None, "no rating in these files"),
    ],
)
def test_ratings_that_do_not_fit_are_one_line(rated, capsys, rows, sha256, reason):
    folder, run = rated
    assert run("--ratings", ratings_of(folder, "ann", *rows, sha256=sha256), "--out", folder / "r.json") == 2
    error = capsys.readouterr().err
    assert reason in error and error.count("\n") == 1 and not (folder / "r.json").exists()


def test_options_and_files_that_contradict_each_other_are_one_line(rated, capsys):
    folder, run = rated
    file = ratings_of(folder, "ann", ("t0", scored(1)))
    (folder / "list.json").write_text("[]")
    for arguments, reason in [
        (["--ratings", file, file], "another file by ann"),
        (["--ratings", folder / "list.json"], "expected a JSON object"),
        (["--ratings", folder / "a.json"], "no file of ratings"),
        (["--ratings", file, "--page", folder / "p.html"], "give one of them"),
        (["b.json", "--page", folder / "p.html"], "are for one result"),
    ]:
        assert run(*arguments) == 2 and reason in capsys.readouterr().err
    assert not (folder / "p.html").exists()
