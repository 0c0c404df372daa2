"""A service that follows its repository, and its doors: tools for agents, a page for people."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from common.console import UserError
from common.files import read_jsonl
from data.pair_rows import read_feedback
from data.search.contents import read_contents
from data.search.index import build_index, open_index
from data.search.results import Search
from data.search.server import HOST, listen, mcp_server, web_app
from data.search.service import Service
from data.search.update import update_index
from tests.browser import open_browser
from tests.commands import PATIENCE, ROOT, Child, run
from tests.word_encoder import WordEncoder

CODE = '''"""Boats."""


def sail(boat, wind):
    """Move a boat before the wind."""
    return boat + wind


def row(boat, arms):
    """Move a boat without wind."""
    return boat + arms * 2


class Harbour:
    """Where boats rest."""

    def open_gate(self, key):
        return key == 7
'''


@pytest.fixture
def repository(tmp_path):
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository" / "boats.py").write_text(CODE)
    (tmp_path / "repository" / "sheep.py").write_text("def shear(sheep):\n    '''Take the wool.'''\n    return sheep\n")
    return tmp_path / "repository"


@pytest.fixture
def service(tmp_path, repository):
    encoder = WordEncoder()
    description = encoder.identity() | {"max_length": 12}
    update_index(
        tmp_path / "index", read_contents(str(repository)), lambda texts: encoder.encode(texts, "passage").numpy(),
        description=description, earlier=None,
    )  # fmt: skip
    return Service(Search(open_index(tmp_path / "index"), encoder), feedback=tmp_path / "feedback.jsonl")


def names(results):
    return [one["source"]["qualname"] for one in results]


def test_questions_places_and_what_is_alike(service):
    assert names(service.search("move a boat before the wind", 1)) == ["sail"]
    assert names(service.search("open_gate", 50))[0] == "Harbour.open_gate" and len(service.search("boat", 500)) == 7
    assert service.unit("boats.py", 18)["source"]["qualname"] == "Harbour.open_gate"  # the innermost
    assert service.unit("boats.py", 2)["kind"] == "file" and service.about["units"] == 7
    like_it = service.related("boats.py", 5, 3)
    assert (
        names(like_it)[0] == "row"
        and "sail" not in names(like_it)
        and all(one["kind"] != "file" for one in like_it[:1])
    )
    for path, line in (("../index/manifest.json", 1), ("/etc/passwd", 1), ("boats.py", 999)):
        with pytest.raises(UserError, match="not in this index"):
            service.unit(path, line)
    with pytest.raises(UserError, match="the query is empty"):
        service.search("  ")


def test_what_changed_before_it_started_is_seen_as_well(service, repository, tmp_path, capsys):
    (repository / "sheep.py").write_text("def dip(sheep):\n    return sheep\n")
    assert service.refresh() == 2 and names(service.search("dip", 1)) == ["dip"]
    # a repository that is gone is no reason to end, nor to say so again and again
    shutil.rmtree(repository)
    assert service.refresh() is None and names(service.search("dip", 1)) == ["dip"]


def test_it_follows_the_files(service, repository, tmp_path):
    assert service.refresh() is None
    (repository / "boats.py").write_text(CODE + "\n\ndef capsize(boat):\n    '''Turn it over.'''\n    return -boat\n")
    assert service.refresh() == 2  # the function, and the file's outline
    assert names(service.search("capsize"))[0] == "capsize" and service.refresh() is None
    (repository / "sheep.py").unlink()
    assert service.refresh() == 0
    assert "shear" not in names(service.search("shear the sheep", 50))
    assert len(open_index(tmp_path / "index").units) == service.about["units"] == 6


def test_many_ask_while_it_is_being_refreshed(service, repository):
    stop, failed = threading.Event(), []
    follower = threading.Thread(target=service.follow, args=(stop, 0.01), daemon=True)
    follower.start()

    def ask(number):
        if number % 5 == 0:
            (repository / f"new{number}.py").write_text(f"def new{number}(boat):\n    return boat + {number}\n")
        found = names(service.search("move a boat before the wind", 3))
        return found[0] == "sail" or failed.append(found)

    with ThreadPoolExecutor(20) as pool:
        assert all(pool.map(ask, range(60)))
    until = threading.Event()
    for _ in range(1000):
        if names(service.search("new55", 1)) == ["new55"]:
            break
        until.wait(0.05)
    stop.set()
    follower.join(PATIENCE)
    assert not failed and names(service.search("new55", 1)) == ["new55"]


def test_an_index_without_a_source_stays_as_it_is(tmp_path, service):
    units = [{"id": "a", "code": "x", "kind": "function"}, {"id": "b", "code": "y z", "kind": "function"}]
    vectors = np.asarray(WordEncoder().encode([unit["code"] for unit in units], "passage"))
    build_index(tmp_path / "other", vectors, units, manifest=WordEncoder().identity())
    other = Service(Search(open_index(tmp_path / "other"), WordEncoder()))
    assert other.refresh() is None and [one["id"] for one in other.search("y", 1)] == ["b"]
    with pytest.raises(UserError, match="no feedback is kept"):
        other.judge("x", "a", True)


def test_verdicts_are_kept_for_training(service, tmp_path, capsys):
    found = service.search("move a boat", 5)
    by_name = {one["source"]["qualname"]: one["id"] for one in found}
    service.judge("move a boat", by_name["sail"], False)
    service.judge("move a boat", by_name["row"], False)
    service.judge("move a boat", by_name["sail"], True)  # changed one's mind
    service.judge("feed a goat", by_name["row"], False)
    with pytest.raises(UserError, match="nowhere:1: not in this index"):
        service.judge("move a boat", "nowhere:1", True)
    (pair,) = read_feedback(str(tmp_path / "feedback.jsonl"))
    assert (
        pair["query"] == "move a boat" and pair["code"].startswith("def sail") and pair["source"]["path"] == "boats.py"
    )
    assert [code[:7] for code in pair["negatives"]] == ["def row"]
    assert "1 pairs · 1 queries without a code that was meant" in capsys.readouterr().out
    (tmp_path / "bad.jsonl").write_text('{"query": "a", "code": "b", "good": 1}\n')
    with pytest.raises(UserError, match=r'bad.jsonl:1: "good" must be true or false'):
        read_feedback(str(tmp_path / "bad.jsonl"))


# ------------------------------------------------------------------------------------------- agents: the protocol


def spoken(server, *calls):
    """What the official client hears from a server, in this process or another."""
    anyio, mcp = pytest.importorskip("anyio"), pytest.importorskip("mcp")

    async def talk():
        async with mcp.Client(server) as client:
            tools = await client.list_tools()
            heard = [await client.call_tool(name, arguments) for name, arguments in calls]
            return {tool.name: tool for tool in tools.tools}, heard

    return anyio.run(talk)


def told(result):
    return result.structured_content["result"]


def test_the_tools_of_the_protocol(service):
    tools, heard = spoken(
        mcp_server(service),
        ("search", {"query": "move a boat before the wind", "k": 2}),
        ("find_related", {"path": "boats.py", "line": 5, "k": 1}),
        ("read_unit", {"path": "boats.py", "line": 18}),
        ("read_unit", {"path": "../../etc/passwd", "line": 1}),
    )
    assert (
        tools.keys() == {"search", "find_related", "read_unit"}
        and "query" in tools["search"].input_schema["properties"]
    )
    first, *_ = told(heard[0])
    assert (first["path"], first["line"], first["end_line"], first["name"]) == ("boats.py", 4, 6, "sail")
    assert first["code"].startswith("def sail") and [one["name"] for one in told(heard[1])] == ["row"]
    unit = heard[2].structured_content
    assert unit.get("result", unit)["name"] == "Harbour.open_gate"
    assert heard[3].is_error and "not in this index" in heard[3].content[0].text


def test_the_command_speaks_it_on_stdin_and_stdout(tmp_path, repository, reference_encoder):
    mcp = pytest.importorskip("mcp")
    made = ("--model", reference_encoder[1], "--query-prefix", "", "--passage-prefix", "")
    done = run("search.py", "index", repository, "--out", tmp_path / "real", *made)
    assert done.returncode == 0, done.stderr
    command = [str(ROOT / "search.py"), "serve", str(tmp_path / "real")]
    server = mcp.StdioServerParameters(command=sys.executable, args=command, env=dict(os.environ))
    _, (heard,) = spoken(server, ("search", {"query": "Harbour", "k": 1}))
    assert told(heard)[0]["name"] == "Harbour"


# --------------------------------------------------------------------------------------------- people: the page


@contextmanager
def served(service):
    """The address of a running server."""
    uvicorn = pytest.importorskip("uvicorn")
    listener = listen(0)
    server = uvicorn.Server(uvicorn.Config(web_app(service), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{listener.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(PATIENCE)


def fetch(address, headers=None, body=None):
    """(status, text) of a request."""
    request = urllib.request.Request(address, data=body, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_only_this_machine_is_answered(service):
    with served(service) as address:
        status, page = fetch(address)
        assert status == 200 and "<title>Code search</title>" in page and "http://" not in page.replace(address, "")
        status, text = fetch(address + "api/search?q=wind&k=1")
        (found,) = json.loads(text)
        assert status == 200 and found["name"] == "sail" and found["html"].startswith("<code>")
        for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
            for path in ("", "api/search?q=wind", "api/about"):
                assert fetch(address + path, headers)[0] == 403
        assert fetch(address + "mcp", {"Host": "evil.example", "Content-Type": "application/json"}, b"{}")[0] in (
            403,
            421,
        )
        assert fetch(address + "api/search?q=")[0] == 400 and fetch(address + "api/search")[0] == 400
        status, text = fetch(address + "api/related?path=/etc/passwd&line=1")
        assert status == 400 and "not in this index" in text
        verdict = json.dumps({"query": "wind", "id": found["id"], "good": True}).encode()
        assert fetch(address + "api/feedback", {"Content-Type": "application/json"}, verdict)[0] == 200
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda n: fetch(f"{address}api/search?q=wind+{n}")[0], range(20)))
        assert answers == [200] * 20
        port = int(address.rsplit(":", 1)[1].strip("/"))
        with pytest.raises(UserError, match=f"port {port} is not available"):
            listen(port)
        # too long, though its length is not told: answered, or cut off before all of it was sent
        endless = iter([json.dumps({"query": "wind", "id": found["id"], "good": False}).encode(), *[b" " * 60_000] * 2])
        with suppress(urllib.error.URLError):
            assert fetch(address + "api/feedback", {"Transfer-Encoding": "chunked"}, endless)[0] == 400
    assert [row["good"] for row in read_jsonl(service.feedback)] == [True]


def test_the_page_in_a_browser(service, tmp_path):
    with served(service) as address, open_browser(tmp_path / "profile") as browser:
        browser.open(address)
        browser.wait_for("document.getElementById('about').innerText.startsWith('7 functions')")
        assert browser.value("document.activeElement.id") == "query"

        # results as one types, of a file together, highlighted
        browser("Input.insertText", text="move a boat")
        browser.wait_for("document.querySelectorAll('.unit').length > 2")
        assert browser.value("document.querySelectorAll('.file').length") <= 2
        assert browser.value("[...document.querySelectorAll('.keyword')].some(node => node.innerText === 'def')")

        # the keyboard: down to a result, Enter opens it, / asks again
        browser.press("ArrowDown")
        browser.wait_for("document.querySelector('.unit').classList.contains('here')")
        browser.press("Enter")
        browser.wait_for("document.querySelector('.unit').classList.contains('open')")
        browser.value("document.querySelector('#query').blur()")
        browser.press("/")
        browser.wait_for("document.activeElement.id === 'query'")

        # a verdict is kept, and what is alike is found
        browser.value(
            "[...document.querySelectorAll('.unit button')].find(node => node.innerText === 'not this').click()"
        )
        browser.wait_for("document.querySelector('button[aria-pressed=true]')?.innerText === 'not this'")
        browser.value("document.querySelector('.unit button').click()")
        browser.wait_for("document.getElementById('about').innerText.includes('results like ')")

        # light and dark, on a telephone without a sideways scroll
        backs = set()
        for scheme in ("light", "dark"):
            browser.show(width=380, scheme=scheme)
            backs.add(browser.value("getComputedStyle(document.body).backgroundColor"))
            assert browser.value("document.documentElement.scrollWidth <= window.innerWidth")
        assert len(backs) == 2 and not browser.errors
        assert all(asked.startswith(address) for asked in browser.asked)
    assert [row["good"] for row in read_jsonl(service.feedback)] == [False]


def wait_for_text(file, text):
    until = time.monotonic() + PATIENCE
    while not (file.exists() and text in file.read_text()):
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.slow
def test_ten_kills_while_it_refreshes_leave_an_index(tmp_path, repository, reference_encoder):
    index = tmp_path / "killed"
    made = ("--model", reference_encoder[1], "--query-prefix", "", "--passage-prefix", "")
    assert run("search.py", "index", repository, "--out", index, *made).returncode == 0
    for number in range(10):
        child = Child("search.py", "serve", index, "--http", 0, "--every", 0.01)
        try:
            wait_for_text(Path(child.stdout), "http://")
            for file in range(20):
                code = f"def f{number}_{file}(boat):\n    return {file}\n" * 3
                (repository / f"m{number}_{file}.py").write_text(code)
            time.sleep(0.05 * number)
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()
        assert len(open_index(index).units) >= 7
    assert run("search.py", "index", repository, "--out", index).returncode == 0
    assert len(open_index(index).units) == 7 + 10 * 20 * 4
