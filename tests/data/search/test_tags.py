"""Functions and classes in the languages that queries read: Kotlin, Swift, Scala, Elixir, Bash, Lua, Haskell, Zig."""

from __future__ import annotations

import pytest

from data.corpus import SourceFile
from data.corpus.languages import GRAMMARS, NAMES, TAUGHT, language_of, packages_of
from data.search.definitions import prose
from data.search.tags import QUERIES
from data.search.units import documented_units, file_unit, functions_in
from tests.data.search.test_definitions import FOUND

KT = """package x

// A circle.
@Serializable
data class Circle(val r: Double) : Shape() {
    constructor(x: Int) : this(1.0) {
        println(x)
    }

    override fun area(): Double {
        return r * r
    }

    companion object {
        fun of(r: Double) = Circle(r)
    }
}

object Registry {
    fun add(x: Int) {
    }
}

fun interface Shape {
    fun area(): Double
}

enum class Color { RED, BLUE }

fun <T> List<T>.second(): T = this[1]

typealias Name = String
"""
SWIFT = """/// A circle.
public struct Circle: Shape {
    var r: Double
    public init(r: Double) { self.r = r }
    func area() -> Double { return r * r }
    subscript(i: Int) -> Int { return i }
    deinit { }
}
class Tree<T> { func walk() {} }
protocol Shape { func area() -> Double }
enum Color { case red; func name() -> String { "" } }
extension Circle { func scaled(by f: Double) -> Circle { Circle(r: r * f) } }
actor Store { func put() {} }
func free(_ x: Int) -> Int { x }
let closure = { (x: Int) in x + 1 }
"""
SCALA = """package x
// A circle.
case class Circle(r: Double) extends Shape {
  def area: Double = r * r
  def scale(f: Double): Circle = { Circle(r * f) }
}
object Circle { def unit = Circle(1); val f = (x: Int) => x }
trait Shape { def area: Double; type T }
enum Color { case Red, Blue }
given intOrd: Ordering[Int] with { def compare(a: Int, b: Int) = a - b }
extension (c: Circle) def twice = c.scale(2)
sealed abstract class Tree[+A]
def free(x: Int) = x
"""
EX = '''defmodule Shop.Cart do
  @moduledoc "A cart."
  @doc """
  Adds.
  """
  def add(cart, item) when is_list(cart), do: [item | cart]
  defp secret(x) do
    x
  end
  defmacro twice(x) do
    quote do: unquote(x) * 2
  end
  defstruct [:a]
  defmodule Inner do
    def hi, do: 1
  end
end
defprotocol Size do
  def size(x)
end
defimpl Size, for: List do
  def size(x), do: length(x)
end
'''
SH = """#!/usr/bin/env bash
# Adds.
add() {
  echo $(( $1 + $2 ))
}
function sub { echo 1; }
x=1
if true; then inner() { :; }; fi
"""
LUA = """-- Adds.
local function add(a, b) return a + b end
function M.sub(a, b) return a - b end
function M:walk() return self end
M.mul = function(a, b) return a * b end
local t = { div = function(a, b) return a / b end, name = "x" }
return M
"""
HS = """module Data.Shape where
-- | A shape.
data Shape = Circle Double | Square Double deriving Show
newtype Name = Name String
type Area = Double
class HasArea a where
  area :: a -> Double
  area _ = 0
instance HasArea Shape where
  area (Circle r) = r * r
  area (Square s) = s
-- | Doubles.
twice :: Int -> Int
twice 0 = 0
twice x = x * 2
infixOp = 3
"""
ZIG = """const std = @import("std");
/// A list.
pub const List = struct {
    items: []u8,
    pub fn init() List { return .{}; }
};
pub fn add(a: i32, b: i32) i32 { return a + b; }
const E = enum { a, b };
const U = union(enum) { x: i32 };
pub fn Generic(comptime T: type) type { return struct { v: T, pub fn get(self: @This()) T { return self.v; } }; }
test "adds" { try std.testing.expect(true); }
"""
TAGGED = {
    "Circle.kt": (KT, [
        ("class", "Circle", 4, 17),
        ("function", "Circle.constructor", 6, 8),
        ("function", "Circle.area", 10, 12),
        ("function", "Circle.companion.of", 15, 15),
        ("class", "Registry", 19, 22),
        ("function", "Registry.add", 20, 21),
        ("class", "Shape", 24, 26),
        ("class", "Color", 28, 28),
        ("function", "second", 30, 30),
    ]),
    "Circle.swift": (SWIFT, [
        ("class", "Circle", 2, 8),
        ("function", "Circle.init", 4, 4),
        ("function", "Circle.area", 5, 5),
        ("function", "Circle.subscript", 6, 6),
        ("function", "Circle.deinit", 7, 7),
        ("class", "Tree", 9, 9),
        ("class", "Shape", 10, 10),
        ("class", "Color", 11, 11),
        ("class", "Circle", 12, 12),
        ("class", "Store", 13, 13),
        ("function", "free", 14, 14),
    ]),
    "Circle.scala": (SCALA, [
        ("class", "Circle", 3, 6),
        ("function", "Circle.area", 4, 4),
        ("function", "Circle.scale", 5, 5),
        ("class", "Circle", 7, 7),
        ("class", "Shape", 8, 8),
        ("class", "Color", 9, 9),
        ("class", "intOrd", 10, 10),
        ("function", "twice", 11, 11),
        ("class", "Tree", 12, 12),
        ("function", "free", 13, 13),
    ]),
    "cart.ex": (EX, [
        ("class", "Shop.Cart", 1, 17),
        ("function", "Shop.Cart.add", 6, 6),
        ("function", "Shop.Cart.secret", 7, 9),
        ("function", "Shop.Cart.twice", 10, 12),
        ("class", "Shop.Cart.Inner", 14, 16),
        ("function", "Shop.Cart.Inner.hi", 15, 15),
        ("class", "Size", 18, 20),
        ("function", "Size.size", 19, 19),
        ("class", "Size", 21, 23),
        ("function", "Size.size", 22, 22),
    ]),
    "add.sh": (SH, [
        ("function", "add", 3, 5),
        ("function", "sub", 6, 6),
        ("function", "inner", 8, 8),
    ]),
    "add.lua": (LUA, [
        ("function", "add", 2, 2),
        ("function", "M.sub", 3, 3),
        ("function", "M.walk", 4, 4),
        ("function", "M.mul", 5, 5),
        ("function", "div", 6, 6),
    ]),
    "Shape.hs": (HS, [
        ("class", "Shape", 3, 3),
        ("class", "Name", 4, 4),
        ("class", "HasArea", 6, 8),
        ("function", "HasArea.area", 8, 8),
        ("function", "HasArea.area", 10, 11),
        ("function", "twice", 14, 15),
        ("function", "infixOp", 16, 16),
    ]),
    "list.zig": (ZIG, [
        ("class", "List", 3, 6),
        ("function", "List.init", 5, 5),
        ("function", "add", 7, 7),
        ("class", "E", 8, 8),
        ("class", "U", 9, 9),
        ("class", "Generic", 10, 10),
    ]),
}  # fmt: skip


def file_of(path: str) -> SourceFile:
    for package in packages_of([language_of(path)]):
        pytest.importorskip(package, reason=f"reading {path} needs {package}")
    text, _ = TAGGED[path]
    return SourceFile(path, text, "", license=None, commit=None, split="train", language=language_of(path))


def test_every_language_is_named_and_tried():
    assert {language_of(path) for path in (*FOUND, *TAGGED)} == GRAMMARS.keys() - set(TAUGHT)
    assert {language_of(path) for path in TAGGED} == QUERIES.keys() and NAMES.keys() == GRAMMARS.keys()


@pytest.mark.parametrize("path", TAGGED)
def test_functions_and_classes_are_found_with_their_names_and_lines(path):
    text, expected = TAGGED[path]
    whole, *found = documented_units(file_of(path))
    assert (whole["kind"], whole["source"]["lines"]) == ("file", [1, text.count("\n")])
    assert [(unit["kind"], unit["source"]["qualname"], *unit["source"]["lines"]) for unit in found] == expected
    assert len({unit["id"] for unit in (whole, *found)}) == 1 + len(found)
    assert file_unit(file_of(path))["code"] == whole["code"]


@pytest.mark.parametrize(
    ("path", "name", "code"),
    [
        ("Circle.kt", "Circle", "// A circle.\n@Serializable\ndata class Circle(val r: Double) : Shape() {"),
        ("Circle.swift", "Circle", "/// A circle.\npublic struct Circle: Shape {"),
        ("Circle.scala", "Circle", "// A circle.\ncase class Circle"),
        ("cart.ex", "Shop.Cart.add", '@doc """\nAdds.\n"""\ndef add'),
        ("add.sh", "add", "#!/usr/bin/env bash\n# Adds.\nadd() {"),
        ("add.lua", "add", "-- Adds.\nlocal function add"),
        ("Shape.hs", "twice", "-- | Doubles.\ntwice :: Int -> Int\ntwice 0 = 0\ntwice x = x * 2"),
        ("list.zig", "List", "/// A list.\npub const List = struct {"),
    ],
)
def test_what_stands_above_a_definition_belongs_to_it(path, name, code):
    codes = {unit["source"]["qualname"]: unit["code"] for unit in reversed(documented_units(file_of(path)))}
    assert codes[name].startswith(code)


def test_the_bodies_of_functions_are_not_shown_in_their_class():
    _, circle, constructor, *_ = documented_units(file_of("Circle.kt"))
    assert "println" not in circle["code"] and "println" in constructor["code"]


@pytest.mark.parametrize(
    ("path", "name", "says"),
    [
        ("cart.ex", "Shop.Cart.add", "Adds."), ("add.lua", "add", "Adds."), ("Shape.hs", "twice", "Doubles."),
        ("Circle.scala", "free", None),
    ],
)  # fmt: skip
def test_pairs_are_made_of_functions_in_every_language(path, name, says):
    found = {one.qualname: one for one in functions_in(file_of(path), min_lines=1)}
    assert found[name].docstring == says and found[name].split == "train"
    assert found[name].source.endswith(found[name].code_without_docstring)
    assert functions_in(file_of(path), min_lines=50) == []


def test_the_words_of_a_comment():
    lines = ["/**", " * Adds <b>two</b> numbers.", " * @param a one", " */", "#[inline]", "@Override"]
    assert prose(lines) == "Adds two numbers.\n@param a one"
    assert prose(["/// Adds.", "//! Twice.", "-- | Thrice.", "# Four."]) == "Adds.\nTwice.\nThrice.\nFour."
    assert prose(["[Serializable]", "add :: Int -> Int"]) == ""


def test_a_function_inside_a_function_belongs_to_it():
    pytest.importorskip("tree_sitter_lua")
    text = "function outer(a)\n  local function inner(b)\n    return b\n  end\n  return inner(a)\nend\n"
    units = documented_units(SourceFile("nested.lua", text, "", license=None, commit=None, split=""))
    assert [unit["source"]["qualname"] for unit in units] == [None, "outer"]
