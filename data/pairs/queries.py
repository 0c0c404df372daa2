"""Search queries for functions and files, made from what the code says about itself.

    docstring  "Compute the shortest path from source to target."  ->  how do I compute the shortest path from …?
    call       path = shortest_path(G, a, b)  in  `route_length`   ->  how does route length get its path?
    name       Graph.add_edge                                      ->  code for add edge of graph
    file       pkg/settings.py, which defines `parse_config`       ->  where is the config parsed?

Nobody types a docstring: its first sentence is rephrased as a search query, in a randomly drawn voice.
"""

from __future__ import annotations

import ast
import random
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from common.python_syntax import parse
from data.corpus import SourceFile
from data.corpus.functions import Function
from data.instruct.prose import summary
from data.search.bm25 import words

# CodeSearchNet (arXiv:1909.09436) and CodeXGLUE (arXiv:2102.04664) drop documentation of fewer than three tokens;
# CodeXGLUE also drops texts with tags or links, or not in English.
LEAST_WORDS = 3
MOST_WORDS = 16  # CodeXGLUE lets a docstring have 256; what people typed in CoSQA (arXiv:2105.13239) ends at 14
TAGS = re.compile(r"</?\w+[^<>]*>|https?://|www\.")
FOREIGN = 0.1  # share of non-ASCII letters from which a sentence is not considered English
PARAMETER = re.compile(r"[a-z_]\w*\s*(\([^)]*\))?:\s")  # a list of parameters, not a sentence

# Digressions: a parenthesis of three words or more or at the end, a second clause, a truth value.
ASIDE = re.compile(r"\s*\((?:[^()\s]+\s+){2,}[^()]*\)|\s*\([^()]*\)$")
SECOND = re.compile(r",? (?:and|but|which|where|while|when|so that|in order to) |, ")  # cut from a long sentence
THIS = re.compile(r"^(?:this|the) (?:module|file|script|package) \w+s (?:the |an? )?", re.IGNORECASE)
CLAUSE = re.compile(r"\s+(?:--|[–—])\s+|[;:]\s+")
OTHERWISE = re.compile(r",?(?: and| or|;)? (?:True|False|None) otherwise$", re.IGNORECASE)
WHETHER = re.compile(r"^returns? (?:true (?:if and only if|iff|if|when)|whether(?: or not)?) ", re.IGNORECASE)

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
VERBS = PARTICIPLES.keys() | {
    "apply", "assign", "calculate", "collect", "compare", "construct", "decide", "detect", "determine", "emit",
    "estimate", "execute", "extract", "fetch", "get", "give", "handle", "initialize", "iterate", "map", "pad",
    "produce", "project", "provide", "put", "reset", "resolve", "retrieve", "return", "run", "search", "set", "start",
    "stop", "subscribe", "test", "transform", "use", "wait", "wrap", "yield",
}  # fmt: skip
GENERIC = {  # words in a variable's name that say nothing about its content
    "result", "results", "value", "values", "data", "output", "temp", "item", "items", "args", "kwargs", "name",
    "names", "keys", "node", "nodes", "edge", "edges", "index", "count", "list", "dict", "func",
}  # fmt: skip
SHORT = 3  # letters up to which a word in a variable's name is considered an abbreviation

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
    "where is the code for {topic}?",
    "which file has {topic}?",
    "in which module do I find {topic}?",
    "how do I open {file}?",
    "where is {file}?",
)
DONE_VOICES = ("where {be} the {thing} {done}?", "in which file {be} the {thing} {done}?")
ORIGINS = ("docstring", "call", "name", "file")  # sources of queries in the code itself


class NoQuery(Exception):
    """The reason why code gives no query of a kind."""


@dataclass(frozen=True)
class Call:
    """A place where a function's result is assigned: `variable = function(…)` in `caller`."""

    caller: Function
    variable: str


def docstring_queries(function: Function, seed: int) -> list[str]:
    """The docstring's first sentence in the fitting voices, a random one first. NoQuery if it says too little."""
    choose = random.Random(f"{seed}\0{function.path}\0{function.first_line}")
    sentence = to_the_point(summary(function.docstring or ""))
    if problem := query_problem(sentence, function.name):
        raise NoQuery(f"docstring {problem}" if sentence else "no docstring that makes a query")
    first, _, rest = sentence.partition(" ")
    verb = None if rest.startswith("of ") else _third_person(first)  # "Sets of nodes"
    if not verb:  # already imperative, or not a verb: used unchanged
        typed = sentence[0].lower() + sentence[1:]
        asked = re.sub("^return ", "get ", typed)
        drawn = choose.choice((sentence, typed))
        return [drawn, *(voice.format(sentence=asked) for voice in COMMAND_VOICES if first.lower() in VERBS)]
    topic = re.sub(r"^(the|an?|all the) ", "", rest)
    base = "get" if verb == "return" else verb  # a searcher gets what the function returns
    forms = {"sentence": sentence, "topic": topic, "base": f"{base} {rest}", "third": f"{first.lower()} {rest}"}
    return [voice.format(**forms) for voice in _drawn_first(choose, FUNCTION_VOICES)]


def to_the_point(sentence: str) -> str:
    """A sentence shortened to what one would type: without digressions, second clause and mathematical symbols."""
    sentence = ASIDE.sub("", sentence.replace("$", "").rstrip(".:; "))
    head = "" if PARAMETER.match(sentence) else CLAUSE.split(sentence)[0]
    sentence = THIS.sub("", head if len(head.split()) >= LEAST_WORDS else sentence)
    if len(sentence.split()) > MOST_WORDS:
        ends = [found.start() for found in SECOND.finditer(sentence) if found.start()]
        heads = [head for head in (sentence[:end] for end in ends) if LEAST_WORDS <= len(head.split()) <= MOST_WORDS]
        sentence = max(heads, key=len, default=sentence)
    return WHETHER.sub("Check whether ", OTHERWISE.sub("", sentence)).rstrip(".:;, ")


def query_problem(text: str, name: str) -> str | None:
    """Why nobody would type this to find the function of that name; None if someone might."""
    if len(text.split()) < LEAST_WORDS:
        return "of too few words"
    if len(text.split()) > MOST_WORDS:
        return "of too many words"
    letters = [letter for letter in text if letter.isalpha()]
    if sum(not letter.isascii() for letter in letters) > FOREIGN * len(letters):
        return "not in English"
    if set(re.findall(r"[a-z]+", text.lower())) <= set(words(name)):
        return "that says its name alone"
    if PARAMETER.match(text):
        return "that lists parameters"
    if TAGS.search(text):
        return "with a tag or a link"
    return None


def _third_person(word: str) -> str | None:
    """The infinitive of a word like "computes" or "Applies", or None."""
    word = word.lower()
    bases = (word.removesuffix("s"), word.removesuffix("es"), word.removesuffix("ies") + "y")
    return next((base for base in bases if word.endswith("s") and base in VERBS and base != word), None)


def name_queries(function: Function, seed: int) -> list[str]:
    """The words of the function's name, with its class. NoQuery for a name of one word, which is too vague."""
    said = [word for word in words(function.name) if len(word) > 1]
    if function.name.startswith("__") or len(said) < 2:
        raise NoQuery("a name that makes no query")
    topic = re.sub("^is ", "check if ", _spoken(function))
    choose = random.Random(f"{seed}\0name\0{function.path}\0{function.first_line}")
    voices = VERB_VOICES if topic.split()[0] in VERBS else NAME_VOICES
    return [voice.format(topic=topic) for voice in _drawn_first(choose, voices)]


def call_queries(function: Function, calls: Iterable[Call], seed: int) -> list[str]:
    """Questions of someone who reads a caller and looks for what it calls. NoQuery if no call says enough.

    They name the caller and the variable, never the function, so that its own words do not find it.
    """
    own = set(words(function.name))
    telling = [call for call in calls if any(map(_says, set(words(call.variable)) - own))]
    if not telling:
        raise NoQuery("no call that makes a query")
    choose = random.Random(f"{seed}\0call\0{function.path}\0{function.first_line}")
    call = choose.choice(telling)
    said = {"caller": _spoken(call.caller), "variable": " ".join(words(call.variable))}
    return [voice.format(**said) for voice in _drawn_first(choose, CALL_VOICES)]


def _says(word: str) -> bool:
    return len(word) > SHORT and word not in GENERIC


def _spoken(function: Function) -> str:
    """The words of a name, of a method with its class."""
    *owners, name = function.qualname.split(".")
    said = [word for word in words(name) if len(word) > 1] or words(name)
    return " ".join(said) + (f" of {' '.join(words(owners[-1]))}" if owners else "")


def call_sites(functions: list[Function]) -> dict[Function, list[Call]]:
    """Where each function is called by another on its side of the split and the result is assigned.

    A call is resolved by its last name, if only one function has it; after a dot the name must have two words, as
    `.get` and `.add` usually belong to others. Calls across the split are ignored: test queries never come from
    training code.
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
    """(last name of the callee, variable that gets the result), in text order."""
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
    """Questions that a file answers, from its header, its path and, if by_name, its functions' names."""
    choose = random.Random(f"{seed}\0{file.path}")
    topic = to_the_point(summary(_heading(file)))
    said = query_problem(topic, file.path.rpartition("/")[2]) is None
    voices = [voice for voice in FILE_VOICES if said or "{topic}" not in voice]
    topic = topic[:1].lower() + topic[1:] if topic[1:2].islower() else topic
    short = "/".join(file.path.split("/")[-2:])
    asked = [voice.format(topic=topic, file=short) for voice in _drawn_first(choose, voices)]
    done = _done_in(file) if by_name else []
    if not done:
        return asked
    thing, participle = choose.choice(done)
    be = "are" if re.search(r"[^aisu]s$", thing) else "is"
    first = choose.choice(DONE_VOICES).format(be=be, thing=thing, done=participle)
    return _drawn_first(choose, [first, *asked])


def _heading(file: SourceFile) -> str:
    """The header of a file: a module's docstring, or the first comment in another language."""
    if file.path.endswith(".py"):
        docstring = ast.get_docstring(parse(file.text)) or ""
        return re.sub(r"^[*=~-]{3,}\n|\n[*=~-]{3,}$", "", docstring.split("\n\n")[0].strip())  # reST titles
    comment = re.match(r"\s*/\*\*?(.*?)\*/", file.text, re.DOTALL)
    if not comment or re.search(r"copyright|license", comment[1], re.IGNORECASE):
        return ""
    lines = [re.sub(r"^\s*\*? ?(@\w+ ?)?", "", line) for line in comment[1].strip().split("\n")]
    return "\n".join(lines).strip().split("\n\n")[0]


def _done_in(file: SourceFile) -> list[tuple[str, str]]:
    """(thing, participle) of a file's top-level functions: parse_config -> ("config", "parsed")."""
    done = []
    for name in re.findall(r"^(?:export )?(?:default )?(?:async )?(?:def|function) +(\w+)", file.text, re.MULTILINE):
        verb, *thing = words(name) or [""]
        if verb in PARTICIPLES and thing and all(len(word) > 1 for word in thing):
            done.append((" ".join(thing), PARTICIPLES[verb]))
    return done


def _drawn_first(choose: random.Random, choices: Iterable[str]) -> list[str]:
    """The choices with a random one in front, the others in order."""
    choices = list(choices)
    first = choose.choice(choices)
    return [first, *(one for one in choices if one != first)]
