import json
import re
from html.parser import HTMLParser

import pytest

from common.console import UserError
from common.files import write_json
from eval.change_table import number
from eval.report import write_report
from tests.eval.report.fake_run import change, fake_run

HOSTILE = "</code></pre><script>alert(1)</script><img src=x onerror=alert(1)>&amp;\x00\x1b[31m\ud800 \"'"
VOID = {"meta", "br", "img", "input", "link", "hr"}


class Page(HTMLParser):
    """Balanced tags, attributes and text of a page."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def run(tmp_path):
    return fake_run(tmp_path)


def read(run):
    return write_report(run, title="networkx on a laptop").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a whole run, its page written: for tests that only look."""
    folder = fake_run(tmp_path_factory.mktemp("whole"))
    read(folder)
    return folder


def test_the_page_is_balanced_and_points_nowhere(whole):
    text = (whole / "report.html").read_text()
    page = Page(text)
    assert page.tags.count("script") == 1
    assert not {"img", "iframe", "object", "base", "form"} & set(page.tags)
    for name, value in page.attributes:
        assert not name.startswith("on") and name not in ("src", "srcset", "action", "data")
        assert name != "href" or value.startswith("#")
    assert not re.search(r"https?:|//[a-z]|@import|url\(", text)
    assert "default-src 'none'" in text and "'unsafe-inline'; script-src 'sha256-" in text


def test_ids_are_unique_and_every_reference_has_its_target(whole):
    page = Page((whole / "report.html").read_text())
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids)) >= 7
    used = {value[1:] for name, value in page.attributes if name == "href"}
    assert len(used) == 7 and used <= set(ids)


def test_every_headline_number_is_on_the_page(whole):
    text = " ".join(Page((whole / "report.html").read_text()).text)
    metrics = json.loads((whole / "metrics.json").read_text())
    for track in metrics["tracks"].values():
        for value in [*track["before"].values(), *track["after"].values(), *track.get("bm25", {}).values()]:
            assert number(value) in text
        for moved in track["change"].values():
            low, high = (number(end, sign=True) for end in moved["interval"])
            assert number(moved["value"], sign=True) in text and f"[{low},\N{NO-BREAK SPACE}{high}]" in text
    for word in ("not distinguishable at this n (about 138 needed)", "81,920", "networkx 3.5", "16 min 26 s", "<0.001"):
        assert word in text


def test_the_answer_comes_first(whole):
    text = " ".join(" ".join(Page((whole / "report.html").read_text()).text).split())
    assert "6 of 9 metrics are better , 0 are worse, and 3 are not distinguishable from chance" in text
    assert text.index("6 of 9") < text.index("bits_per_byte")


def test_each_part_is_shown(whole):
    page = Page((whole / "report.html").read_text())
    text = " ".join(" ".join(page.text).split())
    assert "Did not finish" not in text
    assert page.tags.count("figure") == 3 * 2 + 2 + 1  # two curves a track, categories by two metrics, retrieval
    assert page.tags.count("details") == 3 * (2 * 12 + 1 + 1) + 1  # failures in two, samples, options; the metrics
    for part in (
        "Beside BM25", "By file", "By category", "12 failures, by cause", "wrong value (6)", "What the check saw",
        "Nearest training example · train_3", "near-duplicates at 0.7 or more", "right of it is better",
        "B: hallucination_rate is paired over the 40 tasks where both answers have it (44 before, 45 after).",
        "name 44 of 1,234 45 of 1,234 1 of 4,321", "call 0 of 7 0 of 7 –", "nx.wrongly", "style 0.500 0.500 0.938",
        "at tier seccomp+landlock. Not available here: namespaces: not permitted.",
    ):  # fmt: skip
        assert part in text, part
    assert "function_3" in text and '"expected": "{0, 1}"' in text
    assert "cptcptcptcptcptcptcptcpt" in text  # versions that differ between tracks


def test_code_is_in_colour(whole):
    text = (whole / "report.html").read_text()
    assert '<span class="keyword">def</span> <span class="defined">ancestors</span>(G, source):' in text
    assert '<span class="keyword">return</span> <span class="number">1</span></code>' in text  # in Markdown


def test_what_is_on_one_side_alone_is_named(run):
    before = json.loads((run / "cpt/before.json").read_text())
    before["files"][0]["path"] = "renamed.py"
    (run / "cpt/before.json").write_text(json.dumps(before))
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["tracks"]["sft"]["after"]["macro_f1"] = 0.5
    (run / "metrics.json").write_text(json.dumps(metrics))
    text = " ".join(Page(read(run)).text)
    assert "not compared: networkx/module_0.py, renamed.py." in text and "of 56 held-out files" in text
    assert re.search(r"macro_f1\s+–\s+0\.500(\s+–){4}\s+not compared", text)


def test_files_are_sorted_by_their_change(whole):
    text = (whole / "report.html").read_text()
    changes = re.findall(
        r'module_\d+\.py</td>(?:<td class="figure">[^<]*</td>){3}<td class="figure">([^<]*)</td>', text
    )
    values = [float(change.replace("−", "-")) for change in changes]
    assert len(values) == 57 and values == sorted(values) and values[0] < -1


def test_hostile_text_is_shown_and_not_obeyed(run):
    hostile_everywhere(run)
    text = read(run)
    page = Page(text)
    assert page.tags.count("script") == 1 and "img" not in page.tags
    # Shown as it was typed: six fields, three of the nearest, three in the data card, three in the configuration.
    assert "".join(page.text).count("<script>alert(1)</script><img src=x onerror=alert(1)>&amp;") == 15
    assert "\x00" not in text and "\x1b" not in text


def hostile_everywhere(run):
    rows = json.loads((run / "sft/failures.json").read_text())
    rows[0] = dict.fromkeys(rows[0], HOSTILE) | {"nearest": dict.fromkeys(rows[0]["nearest"], HOSTILE)}
    (run / "sft/failures.json").write_text(json.dumps(rows))
    text = HOSTILE.replace("\ud800", "")  # no file can hold it but as JSON's escape
    (run / "data_card.md").write_text(f"# {text}\n\n| {text} |\n|---|\n\n- `{text}`\n")
    config = json.loads((run / "sft/config.json").read_text())
    config["options"][HOSTILE] = {"value": HOSTILE, "from": HOSTILE}
    (run / "sft/config.json").write_text(json.dumps(config))
    for name in ("before.json", "after.json"):
        result = json.loads((run / "sft" / name).read_text())
        result["by_category"]["$\\frac{1}{$<b>"] = {"n": 1, "metrics": {"pass@1": 0.5}}
        (run / "sft" / name).write_text(json.dumps(result))


def test_a_title_cannot_leave_its_place(run):
    page = Page(write_report(run, title="</title><script>").read_text())
    assert page.tags.count("script") == 1


def test_a_track_that_did_not_run_is_named(tmp_path):
    text = read(fake_run(tmp_path, tracks=("cpt", "embed")))
    assert "Did not finish: B · Instruction tuning." in text
    assert 'id="sft"' not in text and 'id="cpt"' in text


def test_a_single_run_is_its_own_folder(tmp_path):
    run = fake_run(tmp_path, tracks=("embed",))
    for path in (run / "embed").iterdir():
        path.rename(run / path.name)
    text = read(run)
    assert "C · Embedding tuning" in text and "Did not finish" not in text and 'id="cpt"' not in text


def test_what_is_missing_is_left_out(tmp_path):
    track = {"before": {"perplexity": 9.5}, "after": {"perplexity": 9.25}, "change": {}}
    write_json(tmp_path / "metrics.json", {"schema": 1, "seconds": {}, "tracks": {"cpt": track}})
    text = read(tmp_path)
    assert "9.500" in text
    assert not any(part in text for part in ("<svg", "By file", "failures", "Data card", "Configuration", "Versions"))


def test_what_training_cost_on_other_texts_stands_beside_what_it_gained(tmp_path):
    probe = {"before": {"perplexity": 11.5}, "after": {"perplexity": 12.25}}
    probe["change"] = {"perplexity": change(0.75, 0.5, 1.0, 9)}
    track = {"before": {"perplexity": 9.5}, "after": {"perplexity": 9.5}, "change": {}, "probe": probe}
    write_json(tmp_path / "metrics.json", {"schema": 1, "seconds": {}, "tracks": {"cpt": track}})
    row = " ".join(Page(read(tmp_path)).text).partition("perplexity of other texts")[2]
    assert re.match(r"\s*11\.50\s*12\.25\s*\+0\.750\s*\[\+0\.500,\s\+1\.000\]\s*<0\.001\s*9\s*worse", row), row[:80]


def test_a_run_that_broke_off_shows_its_curve(tmp_path):
    fake_run(tmp_path, tracks=("cpt",))
    (tmp_path / "metrics.json").unlink()
    (tmp_path / "cpt/after.json").unlink()
    text = read(tmp_path)
    assert "<svg" in text and "Did not finish: A" in text


@pytest.mark.parametrize(
    ("path", "content", "says"),
    [
        ("metrics.json", "{", "metrics.json: not readable as JSON"),
        ("metrics.json", '{"schema": 1, "seconds": {}}', "metrics.json: the file: 'tracks' is missing"),
        ("cpt/failures.json", '{"id": 1}', "failures.json: expected a list"),
        ("cpt/failures.json", '[{"id": 1, "category": 1, "cause": 1, "nearest": 1}]', "failures.json: expected a list"),
        ("cpt/failures.json", "[", "failures.json: not readable"),
        ("cpt/metrics.jsonl", "{}\nx\n", "metrics.jsonl:2: not JSON"),
        ("config.json", '{"track": "rlhf"}', "unknown track 'rlhf'"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(run, path, content, says):
    (run / path).write_text(content)
    with pytest.raises(UserError, match=re.escape(says)):
        read(run)
    assert not (run / "report.html").exists()


def test_an_empty_folder_has_nothing_to_report(tmp_path):
    with pytest.raises(UserError, match="nothing to report"):
        read(tmp_path)
