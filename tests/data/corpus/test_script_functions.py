import pytest

from data.corpus import SourceFile
from data.corpus.languages import packages_of
from data.corpus.script_functions import script_functions_of
from data.search.units import functions_in

TEXT = """import { x } from './x';

/**
 * Adds two {@link Number numbers}, as [everyone](https://a.b) does.
 *
 * ~~~ts title="a.ts"
 * add(1, 2);
 * ~~~
 * @param a One of them.
 */
export async function add(a: number, b: number) {
  function inner() {}
  return a + b;
}

/** @internal */
const twice = (a: number) => {
  return 2 * a;
};

/** Says naïvely what it is. */
export function say(a: string): string;
/** @deprecated */
export function say(a: number): string;
export function say(a: any) {
  return `${a}
left`;
}

// no JSDoc
export abstract class Box<T> {
  /** What lies in it. */
  @cached
  get(key: string): T {
    return this.map[key];
  }

  private put = async (key: string) => {
    return key;
  };

  abstract open(): void;
}

namespace Deep {
  export function down() {
    return 1;
  }
}

export default function () {
  return 1;
}
"""


@pytest.fixture(autouse=True)
def tree_sitter():
    for package in packages_of(["javascript", "typescript"]):
        pytest.importorskip(package, reason=f"reading JavaScript and TypeScript needs {package}")


def functions(text, path="src/a.ts", **limits):
    language = {"ts": "typescript", "py": "python"}.get(path.rpartition(".")[2], "javascript")
    file = SourceFile(path, text, "", "MIT", "a@1.0.0", "test", language=language)
    return {one.qualname: one for one in functions_in(file, **{"min_lines": 2, **limits})}


def test_functions_methods_and_bound_functions_have_names():
    assert list(functions(TEXT)) == ["add", "twice", "say", "Box.get", "Box.put", "Deep.down", "default"]
    get = functions(TEXT)["Box.get"]
    assert (get.name, get.path, get.license, get.commit, get.split) == ("get", "src/a.ts", "MIT", "a@1.0.0", "test")


def test_a_jsdoc_is_the_docstring_up_to_its_tags_and_no_part_of_the_code():
    found = functions(TEXT)
    assert found["add"].docstring == "Adds two numbers, as everyone does."
    assert found["twice"].docstring is None and found["Box.put"].docstring is None
    assert found["Box.get"].docstring == "What lies in it."
    add = found["add"]
    assert add.code_without_docstring == (
        "export async function add(a: number, b: number) {\n  function inner() {}\n  return a + b;\n}"
    )
    assert add.source.startswith("/**\n * Adds") and add.source.endswith(add.code_without_docstring)
    assert (add.first_line, add.last_line, add.code_lines) == (11, 14, 4)
    assert found["Box.get"].code_without_docstring.startswith("get(key: string): T {\n  return")


def test_a_comment_further_up_is_about_the_file():
    code = "function f() {\n  return 1;\n}\n"
    assert functions(f"/** Of the file. */\n\n{code}", "a.js")["f"].docstring is None
    assert functions(f"/** Of f. */\n{code}", "a.js")["f"].docstring == "Of f."


def test_of_functions_bound_in_one_statement_none_has_a_text_of_its_own():
    assert functions("const f = () => {\n  return 1;\n}, g = () => {\n  return 2;\n};\n", "a.js") == {}


def test_overloads_are_no_functions_but_describe_the_one_that_has_a_body():
    say = functions(TEXT)["say"]
    assert say.docstring == "Says naïvely what it is."
    assert say.code_without_docstring == "export function say(a: any) {\n  return `${a}\nleft`;\n}"


def test_functions_of_commonjs_and_of_prototypes_have_names():
    text = "".join(
        f"{target} = function () {{\n  return 1;\n}};\n"
        for target in ("exports.one", "module.exports.two", "Box.prototype.three", "list[0]")
    )
    assert list(functions(text, "lib/a.cjs")) == ["one", "two", "Box.three"]
    assert list(functions("var Box = class {\n  go() {\n    return 1;\n  }\n};\n", "lib/a.js")) == ["Box.go"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("export default function () {\n  return 1;\n}", ["default"]),
        ("export default function named() {\n  return 1;\n}", ["named"]),
        ("export default async (request) => {\n  return 1;\n};", ["default"]),
        ("export default class {\n  go() {\n    return 1;\n  }\n}", ["default.go"]),
        ("export default {\n  data() {\n    return 1;\n  },\n  a: 1,\n};", ["default.data"]),
        ("export default memo(function View() {\n  return 1;\n});", ["default"]),
        ("export const View = forwardRef((props, ref) => {\n  return 1;\n});", ["View"]),
        (
            "const api = {\n  get() {\n    return 1;\n  },\n  'a-b': () => {\n    return 2;\n  },\n};",
            ["api.get", "api.a-b"],
        ),
        ("const api = {\n  v1: {\n    get: function () {\n      return 1;\n    },\n  },\n};", ["api.v1.get"]),
        ("module.exports = {\n  run() {\n    return 1;\n  },\n};", ["run"]),
        ("exports.a = exports.b = function () {\n  return 1;\n};", ["a"]),
        ("app.get('/v1.0/tides', auth, async (request) => {\n  go();\n});", ["app.get('/v1.0/tides')"]),
        ("fetch(url).then((answer) => {\n  go();\n}).catch(stop);", ["fetch().then().catch()"]),
        ("await start(function () {\n  go();\n});", ["start()"]),
        (f"on('{'a' * 60}', () => {{\n  go();\n}});", [f"on('{'a' * 38}…)"]),
        ("new Vue({\n  methods: {\n    go() {\n      return 1;\n    },\n  },\n});", ["Vue().methods.go"]),
        ("class A {\n  go = debounce(() => {\n    return 1;\n  });\n}", ["A.go"]),
        ("(function ($) {\n  function go() {\n    return 1;\n  }\n})(jQuery);", ["go"]),
        ("const m = (() => {\n  function go() {\n    return 1;\n  }\n  return { go };\n})();", ["m.go"]),
        ("const total = rows.reduce((a, b) => a + b,\n  0);\nrows.forEach((row) => print(row),\n);", []),
        ("const plain = {\n  a: 1,\n  b: [2, () => 3],\n};\nrun({\n  a: 1,\n});", []),
    ],
)
@pytest.mark.parametrize("suffix", ["js", "ts"])
def test_functions_that_are_exported_handed_over_or_put_in_an_object_have_names(text, names, suffix):
    assert list(functions(text + "\n", f"src/a.{suffix}")) == names


def test_a_name_ends_after_the_last_dot_that_is_not_in_an_argument():
    text = "/** Says the tides. */\napp.get('/v1.0/tides', () => {\n  go();\n});\n"
    (one,) = functions(text).values()
    assert (one.name, one.docstring) == ("get('/v1.0/tides')", "Says the tides.")
    assert one.code_without_docstring == "app.get('/v1.0/tides', () => {\n  go();\n});"
    (member,) = functions("const api = {\n  /** Gets. */\n  get() {\n    return 1;\n  },\n};\n").values()
    assert (member.name, member.docstring, member.first_line, member.last_line) == ("get", "Gets.", 3, 5)
    assert member.code_without_docstring == "get() {\n  return 1;\n}"


@pytest.mark.parametrize(
    ("opening", "closing"),
    [("{a: ", "}"), ("f(() => { ", " })"), ("(function () { ", " })()"), ("f(", ")"), ("(", ").g()")],
)
def test_nesting_deeper_than_pythons_stack_is_read(opening, closing):
    text = f"const a = {opening * 3000}1{closing * 3000};\nfunction after() {{\n  return 1;\n}}\n"
    assert "after" in functions(text, "a.js")


def test_what_is_declared_without_a_body_is_passed_over():
    declared = (
        'declare module "a";\ndeclare function g(): void;\nabstract class B {\n  abstract f(): void;\n}\nnamespace N'
    )
    assert functions(declared) == {}


def test_length_counts_the_code_alone():
    assert list(functions(TEXT, min_lines=4)) == ["add", "say"]
    assert "add" not in functions(TEXT, max_lines=3)


def test_a_file_in_python_gives_its_own_functions():
    assert list(functions("def f(x):\n    y = x\n    return y\n", "a.py")) == ["f"]
    assert script_functions_of(SourceFile("a.py", "def f(x):\n    return x\n", "", None, None, "train")) == []
