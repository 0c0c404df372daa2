"""What someone types who searches for a function or a file, made from what the code says about itself.

    docstring  "Compute the shortest path from source to target."  ->  how do I compute the shortest path from …?
    call       path = shortest_path(G, a, b)  in  `route_length`   ->  how does route length get its path?
    name       Graph.add_edge                                      ->  code for add edge of graph
    file       pkg/settings.py, which defines `parse_config`       ->  where is the config parsed?

Nobody types a docstring: its first sentence is put into a searcher's voice, drawn by a seed.
"""

from __future__ import annotations

import ast
import random
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from data.bm25 import words
from data.corpus import SourceFile
from data.functions import Function
from data.prose import summary
from data.syntax import parse

# CodeSearchNet (arXiv:1909.09436, section 2.1) and CodeXGLUE (arXiv:2102.04664, on AdvTest) drop documentation of fewer
# than three tokens; CodeXGLUE also what holds tags or links, and what is not English.
LEAST_WORDS = 3
MOST_WORDS = 40  # CodeXGLUE lets a docstring have 256; nobody types more than this
TAGS = re.compile(r"</?\w+[^<>]*>|https?://|www\.")
FOREIGN = 0.1  # share of letters outside ASCII from which on a sentence is taken not to be English

THIRD_PERSON = re.compile(
    r"^(return|comput|find|generat|check|calculat|creat|yield|determin|decid|iterat|add|remov|get|set|read|writ|convert"
    r"|construct|draw|test|count|estimat|draw|compar|us|assign|build|updat|pars|mak|giv|appl|sort|select|produc)(e?s)$",
    re.IGNORECASE,
)
ENDS_IN_E = {
    "comput", "generat", "calculat", "creat", "determin", "decid", "iterat", "remov", "writ", "estimat",
    "compar", "us", "updat", "pars", "mak", "giv", "produc",
}  # fmt: skip
PARTICIPLES = {
    "parse": "parsed", "read": "read", "write": "written", "load": "loaded", "save": "saved", "build": "built",
    "compute": "computed", "create": "created", "generate": "generated", "convert": "converted",
    "check": "checked", "validate": "validated", "draw": "drawn", "find": "found", "make": "made",
    "add": "added", "remove": "removed", "update": "updated", "send": "sent", "open": "opened",
    "close": "closed", "sort": "sorted", "merge": "merged", "split": "split", "select": "selected",
    "register": "registered", "encode": "encoded", "decode": "decoded", "format": "formatted",
    "download": "downloaded", "train": "trained", "delete": "deleted", "copy": "copied", "count": "counted",
    "render": "rendered", "compile": "compiled", "install": "installed",
}  # fmt: skip
GENERIC = {  # variables whose name says nothing about what was asked for
    "result", "results", "res", "ret", "value", "values", "val", "data", "out", "output", "tmp", "temp", "obj",
    "item", "items", "args", "kwargs", "name", "names", "key", "keys", "node", "nodes", "edge", "edges",
    "index", "idx", "count", "list", "dict", "set", "func", "fn",
}  # fmt: skip

VERBS = PARTICIPLES.keys() | {stem + "e" for stem in ENDS_IN_E} | {
    "return", "get", "set", "iterate", "construct", "test", "compare", "assign", "apply", "initialize", "run",
}  # fmt: skip

FUNCTION_VOICES = ("{sentence}", "{topic}", "how to {base}", "function that {third}", "how do I {base}?")
COMMAND_VOICES = ("how to {sentence}", "how do I {sentence}?")  # of a sentence that begins with a verb
CALL_VOICES = (
    "how does {caller} get its {variable}?",
    "what computes the {variable} for {caller}?",
    "where does the {variable} in {caller} come from?",
)
NAME_VOICES = ("{topic}", "code for {topic}", "function for {topic}", "where is {topic} implemented?")
VERB_VOICES = ("{topic}", "how to {topic}", "how do I {topic}?")  # of a name that begins with a verb
FILE_VOICES = (
    "where is {topic} implemented?",
    "which file has {topic}?",
    "in which module do I find {topic}?",
    "how do I open {file}?",
    "where is {file}?",
)
DONE_VOICES = ("where is the {thing} {done}?", "in which file is the {thing} {done}?")
ORIGINS = ("docstring", "call", "name", "file")  # what a query can be made from


class NoQuery(Exception):
    """Why a piece of code gives no query of a kind."""


@dataclass(frozen=True)
class Call:
    """A place where a function's result gets a name: `variable = function(…)` in `caller`."""

    caller: Function
    variable: str


def docstring_queries(function: Function, seed: int) -> list[str]:
    """The docstring's first sentence in the voices that fit, a drawn one first. NoQuery when it says too little."""
    choose = random.Random(f"{seed}\0{function.path}\0{function.first_line}")
    sentence = summary(function.docstring or "").rstrip(".:; ")
    said = re.findall(r"[A-Za-z]+", sentence.lower())
    own = set(re.findall(r"[a-z]+", function.name.lower()))
    if not LEAST_WORDS <= len(sentence.split()) <= MOST_WORDS or set(said) <= own:
        raise NoQuery("no docstring that makes a query")
    if TAGS.search(sentence):
        raise NoQuery("docstring with a tag or a link")
    letters = [letter for letter in sentence if letter.isalpha()]
    if sum(not letter.isascii() for letter in letters) > FOREIGN * len(letters):
        raise NoQuery("docstring not in English")
    first, _, rest = sentence.partition(" ")
    verb = THIRD_PERSON.match(first)
    if not verb:  # already in the imperative, or not a verb at all: typed as it stands
        typed = sentence[0].lower() + sentence[1:]
        drawn = choose.choice((sentence, typed))
        return [drawn, *(voice.format(sentence=typed) for voice in COMMAND_VOICES if first.lower() in VERBS)]
    stem = verb.group(1).lower()
    base = stem + "e" if stem in ENDS_IN_E else stem
    topic = re.sub(r"^(the|an?|all the) ", "", rest)
    forms = {"sentence": sentence, "topic": topic, "base": f"{base} {rest}", "third": f"{first.lower()} {rest}"}
    return [voice.format(**forms) for voice in _drawn_first(choose, FUNCTION_VOICES)]


def name_queries(function: Function, seed: int) -> list[str]:
    """The words of the function's name, with its class. NoQuery for a name of one word: it asks for anything."""
    *owners, name = function.qualname.split(".")
    said = [word for word in words(name) if len(word) > 1]
    if name.startswith("__") or len(said) < 2:
        raise NoQuery("a name that makes no query")
    topic = " ".join(said) + (f" of {' '.join(words(owners[-1]))}" if owners else "")
    choose = random.Random(f"{seed}\0name\0{function.path}\0{function.first_line}")
    voices = VERB_VOICES if said[0] in VERBS else NAME_VOICES
    return [voice.format(topic=topic) for voice in _drawn_first(choose, voices)]


def call_queries(function: Function, calls: Iterable[Call], seed: int) -> list[str]:
    """Questions of someone who reads a caller and looks for what it calls. NoQuery when no call says enough.

    Told are the caller and the variable, never the name of the function: its own words do not find it.
    """
    own = set(words(function.name))
    telling = [call for call in calls if set(words(call.variable)) - own - GENERIC and len(call.variable) > 2]
    if not telling:
        raise NoQuery("no call that makes a query")
    choose = random.Random(f"{seed}\0call\0{function.path}\0{function.first_line}")
    call = choose.choice(telling)
    caller, variable = (" ".join(words(name)) for name in (call.caller.name, call.variable))
    return [voice.format(caller=caller, variable=variable) for voice in _drawn_first(choose, CALL_VOICES)]


def call_sites(functions: list[Function]) -> dict[Function, list[Call]]:
    """Where each function is called by another of its side of the split and the result gets a name.

    A call is known by its last name, if one function alone has it; behind a dot it must have two words, as `.get` and
    `.add` are mostly other people's. Calls across the split are left out: no test query is made from training code.
    """
    named = defaultdict(list)
    for function in functions:
        named[function.name].append(function)
    unique = {name: found[0] for name, found in named.items() if len(found) == 1}
    sites: dict[Function, list[Call]] = defaultdict(list)
    for caller in functions:
        if caller.name.startswith("__"):
            continue
        for name, variable in _named_calls(caller):
            function = unique.get(name)
            if function is not None and function is not caller and function.split == caller.split:
                sites[function].append(Call(caller, variable))
    return sites


def _named_calls(caller: Function) -> list[tuple[str, str]]:
    """(last name of what is called, variable that gets the result), in the order of the text."""
    found = []
    for node in ast.walk(parse(caller.source)):
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target, value = node.targets[0], node.value
        elif isinstance(node, ast.AnnAssign | ast.For):
            target, value = node.target, node.iter if isinstance(node, ast.For) else node.value
        else:
            continue
        value = value.value if isinstance(value, ast.Await) else value
        if not isinstance(target, ast.Name) or not isinstance(value, ast.Call):
            continue
        if isinstance(value.func, ast.Name):
            found.append((node.lineno, value.func.id, target.id))
        elif isinstance(value.func, ast.Attribute) and len(words(value.func.attr)) > 1:
            found.append((node.lineno, value.func.attr, target.id))
    return [(name, variable) for _, name, variable in sorted(found)]


def file_queries(file: SourceFile, seed: int, *, by_name: bool = False) -> list[str]:
    """Questions that a file answers: by what it says at its top, by its path and, if by_name, by what is done in it."""
    choose = random.Random(f"{seed}\0{file.path}")
    topic = summary(_heading(file)).rstrip(".:; ")
    said = LEAST_WORDS <= len(topic.split()) <= MOST_WORDS and not TAGS.search(topic)
    voices = [voice for voice in FILE_VOICES if said or "{topic}" not in voice]
    topic = topic[:1].lower() + topic[1:] if topic[1:2].islower() else topic
    short = "/".join(file.path.split("/")[-2:])
    asked = [voice.format(topic=topic, file=short) for voice in _drawn_first(choose, voices)]
    done = _done_in(file) if by_name else []
    if not done:
        return asked
    thing, participle = choose.choice(done)
    return _drawn_first(choose, [choose.choice(DONE_VOICES).format(thing=thing, done=participle), *asked])


def _heading(file: SourceFile) -> str:
    """What stands at the top of a file: a module's docstring, or the first comment of another language."""
    if file.path.endswith(".py"):
        docstring = ast.get_docstring(parse(file.text)) or ""
        return re.sub(r"^[*=~-]{3,}\n|\n[*=~-]{3,}$", "", docstring.split("\n\n")[0].strip())  # reST titles
    comment = re.match(r"\s*/\*\*?(.*?)\*/", file.text, re.DOTALL)
    if not comment or re.search(r"copyright|license", comment[1], re.IGNORECASE):
        return ""
    lines = [re.sub(r"^\s*\*? ?(@\w+ ?)?", "", line) for line in comment[1].strip().split("\n")]
    return "\n".join(lines).strip().split("\n\n")[0]


def _done_in(file: SourceFile) -> list[tuple[str, str]]:
    """(thing, participle) of the functions that a file defines at its top: parse_config -> ("config", "parsed")."""
    done = []
    for name in re.findall(r"^(?:export )?(?:default )?(?:async )?(?:def|function) +(\w+)", file.text, re.MULTILINE):
        verb, *thing = words(name) or [""]
        if verb in PARTICIPLES and thing and all(len(word) > 1 for word in thing):
            done.append((" ".join(thing), PARTICIPLES[verb]))
    return done


def _drawn_first(choose: random.Random, choices: Iterable[str]) -> list[str]:
    """The choices with a drawn one in front, the others in their order."""
    choices = list(choices)
    first = choose.choice(choices)
    return [first, *(one for one in choices if one != first)]
