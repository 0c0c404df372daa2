from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from data.checks.script.modules import as_commonjs, imported_modules, program_of, resolve

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
FILES = {
    "src/main.js": """
import { two as deux } from './two';
import three, * as all from './three.js';
export function sum() { return deux() + three + all.four; }
""",
    "src/two.js": """
import { sum } from './main.js';
export function two() { return typeof sum === 'function' ? 2 : 0; }
""",
    "src/three.js": """
export default 3;
const four = 4, five = 5;
export { four, five as cinq };
export * from './six/index.js';
""",
    "src/six/index.js": "export { seven as six } from '../seven.mjs';\nexport default class {}\n",
    "src/seven.mjs": "export const seven = 6;\nexport * as ns from './eight';\n",
    "src/eight.ts": "import type { T } from './types';\nexport default function eight() { return 8; }\n",
}


def evaluated(modules, main, name):
    program = (
        program_of(modules, main, name, "it") + "console.log(JSON.stringify(typeof it === 'function' ? it() : it));"
    )
    done = subprocess.run(["node", "-e", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_module_brings_all_that_it_imports():
    assert set(imported_modules("src/main.js", FILES.get)) == set(FILES)
    assert imported_modules("src/eight.ts", FILES.get) == {"src/eight.ts": FILES["src/eight.ts"]}  # types are nothing
    assert next(iter(imported_modules("src/main.js", FILES.get))) == "src/main.js"


@pytest.mark.parametrize(
    "text",
    ["import x from 'lodash';", "import x from './missing';", "x = require('../../etc');", "x = 1;" + " " * 24_000],
)
def test_what_is_elsewhere_or_too_much_cannot_be_carried(text):
    assert imported_modules("a.js", {"a.js": text}.get) is None


def test_builtin_modules_need_no_file():
    assert imported_modules("a.js", {"a.js": "import fs from 'node:path'; const u = require('util');"}.get)


@pytest.mark.parametrize(
    ("name", "path"), [("./b", "src/b.ts"), ("./b.js", "src/b.ts"), ("../c", "c/index.js"), ("b", None), ("./c", None)]
)
def test_a_name_stands_for_a_file_as_node_and_typescript_find_it(name, path):
    assert resolve("src/a.ts", name, {"src/b.ts": "", "c/index.js": ""}.get) == path


@needs_node
def test_imports_and_exports_of_every_form_work_in_one_program():
    plain = {path: text for path, text in FILES.items() if path.endswith("js")} | {"src/eight.js": "export default 8;"}
    assert evaluated(plain, "src/main.js", "sum") == 2 + 3 + 4
    assert evaluated(plain, "src/two.js", "two") == 2  # which imports its importer
    module = {"a.js": "const a = () => require('./b').x;\nmodule.exports = a;", "b.js": "exports.x = 5;"}
    assert evaluated(module, "a.js", "a") == 5
    default = {"a.js": "export default function () { return 7; }"}
    assert evaluated(default, "a.js", "default") == 7
    spread = {
        "a.js": "import * as b from './b.js';\nexport const f = () => [b.six, b.cinq];",
        "b.js": FILES["src/three.js"],
    }
    spread |= {"six/index.js": "export const six = 6;"}
    assert evaluated(spread, "a.js", "f") == [6, 5]


def test_what_is_no_import_or_export_stays_as_it_is():
    text = "// import a from 'b'\nconst s = 'export default';\n"
    assert as_commonjs(text, "javascript") == text
    assert as_commonjs("export interface A {}\nexport type B = 1;\n", "typescript") == "interface A {}\ntype B = 1;\n"
    assert as_commonjs("import { type A, b } from './c';", "typescript") == "const {\"b\": b} = require('./c');"
