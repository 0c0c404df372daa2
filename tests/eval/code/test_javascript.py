import contextlib
import json
import shutil
import socket
import sys

import pytest

from common.console import UserError
from data.checks import node
from data.checks.node import node_command
from eval.code.ask import chat_prompt, plain_prompt
from eval.code.grade import grade
from eval.code.javascript import python_tests, read_script
from eval.code.task_files import read_code_tasks
from eval.code.tasks import CodeTask
from eval.code.verdict import job_of, run_tests
from sandbox.supervise import run_one
from sandbox.workers import Workers

PROMPT = "//Add.\n// >>> add(1, 2)\n// 3\nfunction add(a, b){\n"
TESTS = "const assert = require('node:assert');\n\n\nfunction test() {\n  let candidate = add;\n%s}\n\ntest();"
ROW = {
    "name": "HumanEval_53_add",
    "language": "js",
    "prompt": PROMPT,
    "tests": TESTS % "  assert.deepEqual(candidate(1, 2),3);\n  assert.deepEqual(candidate([1], [2]),[1, 2]);\n",
    "stop_tokens": ["\nfunction ", "\n/*", "\n//", "\nconsole.log"],
}
RIGHT = "    return Array.isArray(a) ? a.concat(b) : a + b;\n}\n"


def test_tests_that_compare_calls_with_literals_become_python():
    shown = """  assert.deepEqual(candidate({2: 5, -1.5: "b: \\"true\\""}, undefined, -1e-05),[true, {x: null}]);
  assert.deepEqual(candidate(),undefined);
"""
    name, tests = python_tests(TESTS % shown)
    wanted = (
        "assert add(*[{'2': 5, '-1.5': 'b: \"true\"'}, None, -1e-05]) == [True, {'x': None}]\nassert add(*[]) == None\n"
    )
    assert (name, tests) == ("add", wanted)


@pytest.mark.parametrize(
    "line",
    ["assert.deepEqual(candidate(other(1)),2);", "assert.deepEqual(other(1),2);", "assert.equal(candidate(1),2);"],
)
def test_other_tests_are_refused_by_file_and_line(tmp_path, line):
    (tmp_path / "js.jsonl").write_text(json.dumps(ROW | {"tests": TESTS % f"  {line}\n"}) + "\n")
    with pytest.raises(UserError, match=r"js\.jsonl:1: not a code task"):
        read_code_tasks(str(tmp_path / "js.jsonl"))


@pytest.mark.parametrize(
    ("answer", "route", "code"),
    [
        (RIGHT + "\nconsole.log(add(1, 2))", "body", PROMPT + RIGHT.rstrip("\n") + "\n"),
        ("Sure:\n~~~ javascript title=a.js\nlet add = `\n```\n`;\n~~~", "fence", "let add = `\n```\n`;\n"),
        ("Sure:\n```js\nadd(1)\n```\n```js\nconst add = (a, b) => 3;\n```", "fence", "const add = (a, b) => 3;\n"),
        ("function add(a, b) { return 3; }", "text", "function add(a, b) { return 3; }"),
        ("```js\nreturn 3;\n}\n```", "body", PROMPT + "return 3;\n}\n"),
        (" \n", "none", None),
    ],
)
def test_the_definition_is_found_as_a_block_as_text_or_as_the_body(answer, route, code):
    solution = read_script(PROMPT, "add", answer, tuple(ROW["stop_tokens"]))
    assert (solution.route, solution.code) == (route, code)


def test_a_model_is_asked_for_the_language_and_stopped_where_the_row_says(tmp_path):
    (tmp_path / "js.jsonl").write_text(json.dumps(ROW) + "\n")
    (task,) = read_code_tasks(str(tmp_path / "js.jsonl"))
    assert plain_prompt(task) == PROMPT.rstrip() and task.stops == tuple(ROW["stop_tokens"])
    assert "one JavaScript code block" in chat_prompt(task) and "```javascript\n//Add." in chat_prompt(task)


@pytest.mark.parametrize(("language", "which", "reason"), [("js", None, "need node"), ("ts", "node", "npm install")])
def test_without_node_or_something_that_takes_types_out_there_is_one_clear_line(monkeypatch, language, which, reason):
    class Reply:
        stdout = '[false, ""]'

    monkeypatch.setattr(shutil, "which", lambda _: which)
    monkeypatch.setattr(node.subprocess, "run", lambda *_, **__: Reply)
    with pytest.raises(UserError, match=reason):
        node_command.__wrapped__(language)


def ready(language: str) -> str:
    """Why answers in a language cannot run here, or nothing."""
    try:
        node_command(language)
    except UserError as error:
        return str(error)
    return "" if sys.platform == "linux" else "the layers are Linux's"


needs_node = pytest.mark.skipif(bool(ready("js")), reason=ready("js"))
needs_typescript = pytest.mark.skipif(bool(ready("ts")), reason=ready("ts"))


def statuses(tests: str, *codes: str, language: str = "js", limit: float = 10.0) -> list[str]:
    task = CodeTask("task", PROMPT, "add", tests, language=language)
    return [verdict.status for verdict in run_tests([job_of(task, code, limit) for code in codes])]


@needs_node
def test_a_published_row_is_graded_from_file_to_figure(tmp_path):
    (tmp_path / "js.jsonl").write_text(json.dumps(ROW) + "\n")
    answers = [RIGHT, "    return a + b;\n}\n", "    return a +;\n}\n", "    return c;\n}\n"]
    rows = [{"task_id": ROW["name"], "completion": text} for text in answers]
    result = grade(read_code_tasks(str(tmp_path / "js.jsonl")), rows)
    assert [row["status"] for row in result["results"]] == ["pass", "wrong", "syntax", "exception"]
    assert [(row["passed"], row["total"]) for row in result["results"]] == [(2, 2), (1, 2), (0, 0), (0, 2)]
    assert result["metrics"]["pass@1"] == 0.25 and result["metrics"]["syntactic"] == 0.75
    assert [row["cause"] for row in result["results"]][1:3] == ["wrong value", "syntax"]


@needs_node
def test_values_of_every_kind_come_through():
    tests = """
assert add([1, 2.5, "a\\n\\u2028", None, True, {"k": [{}]}]) == [1, 2.5, "a\\n\\u2028", None, True, {"k": [{}]}]
assert add("big") == float(1 << 60) and add("inf") == float("inf") and add("int") == 1 << 70 and add("none") is None
"""
    code = """
const fs = require("fs"), lent = [], names = 1;  // names that the other end of the pipe has as well
const special = { big: 2 ** 60, inf: Infinity, int: 2n ** 70n, none: undefined };
const add = (x) => (x in special ? special[x] : x);
"""
    assert statuses(tests, code) == ["pass"]


CHEATS = {
    "an object that says yes": "const add = () => ({ toJSON: () => 3, valueOf: () => 3, equals: () => true });",
    "a proxy": "const add = () => new Proxy({}, { get: () => 3, has: () => true, ownKeys: () => [] });",
    "patched JSON": "JSON.stringify = () => '[\"value\", true, null]'; const add = () => 0;",
    "patched prototypes": "Object.prototype.toJSON = Array.prototype.toJSON = () => 3; const add = () => [0];",
    "a patched assert": "require('node:assert').deepEqual = () => {}; const add = () => 0;",
    "exit": "const add = () => process.exit(0);",
    "an exit at once": "process.exit(0);",
    "results ahead": """
const fs = require("node:fs");
for (let fd = 3; fd < 64; fd++) try { fs.writeSync(fd, '["value", 4, null]\\n'.repeat(9)); } catch {}
const add = () => 4;""",
    "a forged report": """
const fs = require("node:fs");
const report = '{"outcome": "finished", "got": ["1 1"], "exceptions": [null], "detail": "", "secret": ""}';
for (let fd = 3; fd < 64; fd++) try { fs.writeSync(fd, report); } catch {}
process.exit(0);""",
    "a map": "const add = () => new Map([[3, 3]]);",
    "a promise": "const add = async () => 3;",
    "an endless loop": "const add = () => { for (;;); };",
    "all the memory": "const add = () => { const x = []; for (;;) x.push(new Array(1e6).fill(1)); };",
    "all the buffers": "const add = () => { const x = []; for (;;) x.push(Buffer.alloc(1e8, 1)); };",
    "many threads": """
const { Worker } = require("node:worker_threads");
const add = () => { for (let i = 0; i < 99; i++) new Worker("for (;;);", { eval: true }); for (;;); };""",
}


@needs_node
def test_no_answer_decides_its_own_verdict_or_takes_more_than_it_may():
    found = dict(zip(CHEATS, statuses("assert add(1, 2) == 3\n", *CHEATS.values(), limit=1.5), strict=True))
    assert {name: status for name, status in found.items() if status == "pass"} == {}
    assert found["an endless loop"] == "timeout" and found["many threads"] in ("denied", "exception")


@needs_node
def test_an_answer_reaches_no_file_no_network_and_no_other_process(tmp_path):
    (tmp_path / "secret").write_text("a key")
    reaches = {
        "reading": f"fs.readFileSync({str(tmp_path / 'secret')!r})",
        "writing": f"fs.writeFileSync({str(tmp_path / 'new')!r}, '')",
        "a program": "require('node:child_process').execFileSync('/bin/true')",
        "a signal": "process.kill(process.ppid, 'SIGKILL')",
        "the tests' memory": "fs.openSync(`/proc/${process.ppid}/mem`)",
        "the tests' files": "for (const fd of [0, 1, 2]) fs.readlinkSync(`/proc/${process.ppid}/fd/${fd}`)",
        "rights": "if (/CapEff:\\s*0+\\n/.test(fs.readFileSync('/proc/self/status', 'utf8'))) throw new Error('none')",
        "a socket": "if (new (process.binding('tcp_wrap').TCP)(0).bind('127.0.0.1', 0)) throw new Error('none')",
    }
    codes = [f"const fs = require('node:fs');\nconst add = () => {{ {code}; return 3; }};" for code in reaches.values()]
    found = dict(zip(reaches, statuses("assert add(1, 2) == 3\n", *codes), strict=True))
    assert {name: status for name, status in found.items() if status not in ("exception", "denied")} == {}
    assert not (tmp_path / "new").exists()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"require('node:net').connect({port}, '127.0.0.1');\nconst add = () => 3;"
        statuses("assert add(1, 2) == 3\n", code)
        server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            server.accept()


@needs_node
@pytest.mark.parametrize("layers", [("namespaces", "seccomp"), ("seccomp", "landlock")], ids="+".join)
def test_node_starts_at_the_lower_tiers_too(layers):
    job = job_of(CodeTask("task", PROMPT, "add", "assert add(1, 2) == 3\n", language="js"), PROMPT + RIGHT, 10.0)
    with contextlib.closing(Workers(layers)) as workers:
        try:
            outcome = run_one(job, workers)
        except RuntimeError as error:
            pytest.skip(str(error))
    assert json.loads(outcome.got[0])[:2] == [1, 1], outcome


@needs_typescript
def test_types_are_taken_out_of_typescript():
    head = "interface Sum { (a: number, b: number): number }\nenum Kind { One = 1 }\n"
    code = head + "const add: Sum = (a: number, b: number): number => (a + b * Kind.One) as number;"
    codes = [code, code.replace("a +", "a -"), "const add = (a: => 3"]
    assert statuses("assert add(1, 2) == 3\n", *codes, language="ts") == ["pass", "wrong", "syntax"]
