"""Functions and classes in the languages that are searched and not learnt from."""

from __future__ import annotations

import pytest

from data.corpus import SourceFile
from data.corpus.languages import language_of, packages_of
from data.search.units import documented_units

GO = """// Copyright of somebody.

// Package pile keeps things.
package pile

// Stack is a pile.
type Stack[T any] struct {
	items []T // the last one is on top
}

type (
	// Height is counted in items.
	Height int
	Shape  interface{ Area() float64 }
)

// Push puts it on top.
func (s *Stack[T]) Push(item T) {
	s.items = append(s.items, item)
}

func New() *Stack[int] { return nil }

var drained = func() {}
"""
RUST = """//! Shapes.
use std::fmt;

/// A point.
#[derive(Debug)]
pub struct Point { x: i32 }
struct Unit;

impl fmt::Display for Point {
    /// Shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.x)
    }
}

impl<'a, T> Say for &'a mut Wrapper<Vec<T>> {
    pub fn new() -> Self
    where
        T: Copy,
    {
        fn inside() {}
        todo!()
    }
}

trait Shape {
    fn area(&self) -> f64;
    fn twice(&self) -> f64 {
        2.0 * self.area()
    }
}

mod inner {
    pub fn helper() {}
}
"""
JAVA = """package x;

/** A circle. */
@Deprecated
public class Circle<T> extends Shape {
    private double r; // radius

    /** Makes it. */
    public Circle(double r) {
        this.r = r;
    }

    @Override
    public double area() {
        Runnable run = new Runnable() { public void run() {} };
        return Math.PI * r * r;
    }

    abstract void none();

    enum Color { RED }
}

record Pair(int a, int b) {}
"""
C = """/* Lists. */
#include <stdio.h>

typedef struct {
    int y;
} other_t;

int prototype(int a);

/* Adds a node. */
static struct node *add(struct list *l, int (*cb)(int))
{
    return 0;
}
"""
CPP = """#include <vector>
namespace geo {

// A box.
template <typename T>
class Box : public Base {
 public:
  Box() = default;
  ~Box() { free(); }
  T& get(int i) const { return v[i]; }
  bool operator==(const Box& other) const {
    return true;
  }
 private:
  std::vector<T> v;
};

// Area of it.
template <typename T>
double Box<std::vector<T>>::area() const {
  return 1;
}

}  // namespace geo
"""
CSHARP = """using System;
namespace Shop
{
    /// <summary>A cart.</summary>
    [Serializable]
    public class Cart
    {
        public int Count { get; set; }
        /// <summary>Adds.</summary>
        public void Add(int x)
        {
            Count += x;
        }
        public int Twice() => 2 * Count;
    }
}
"""
RUBY = """# frozen_string_literal: true

module Garden
  # A tree.
  class Tree < Base
    # How deep.
    def depth(node)
      1 + node.children.map { |c| depth(c) }.max
    end

    def self.plant; new; end
  end
end
"""
PHP = """<?php
namespace App\\Models;

/** A user. */
class User extends Model
{
    /** Says hello. */
    public function hello(string $to): string
    {
        return "hello $to";
    }
}

function helper($x) { return $x; }
"""
FOUND = {
    "pile.go": (GO, [("class", "Stack", 7, 9), ("class", "Height", 13, 13), ("class", "Shape", 14, 14),
                     ("function", "Stack.Push", 18, 20), ("function", "New", 22, 22),
                     ("function", "drained", 24, 24)]),
    "shape.rs": (RUST, [("class", "Point", 6, 6), ("class", "Unit", 7, 7), ("function", "Point.fmt", 11, 13),
                        ("function", "Wrapper.new", 17, 23), ("class", "Shape", 26, 31),
                        ("function", "Shape.twice", 28, 30), ("function", "inner.helper", 34, 34)]),
    "Circle.java": (JAVA, [("class", "Circle", 4, 22), ("function", "Circle.Circle", 9, 11),
                           ("function", "Circle.area", 13, 17), ("class", "Circle.Color", 21, 21),
                           ("class", "Pair", 24, 24)]),
    "list.c": (C, [("class", "other_t", 4, 6), ("function", "add", 11, 14)]),
    "box.hpp": (CPP, [("class", "Box", 5, 16), ("function", "Box.~Box", 9, 9), ("function", "Box.get", 10, 10),
                      ("function", "Box.operator==", 11, 13), ("function", "Box.area", 19, 22)]),
    "Cart.cs": (CSHARP, [("class", "Cart", 5, 15), ("function", "Cart.Add", 10, 13),
                         ("function", "Cart.Twice", 14, 14)]),
    "tree.rb": (RUBY, [("class", "Garden", 3, 13), ("class", "Garden.Tree", 5, 12),
                       ("function", "Garden.Tree.depth", 7, 9), ("function", "Garden.Tree.plant", 11, 11)]),
    "User.php": (PHP, [("class", "User", 5, 12), ("function", "User.hello", 8, 11), ("function", "helper", 14, 14)]),
}  # fmt: skip


def units_of(path, text):
    """By qualified name; the file is None."""
    for package in packages_of([language_of(path)]):
        pytest.importorskip(package, reason=f"reading {path} needs {package}")
    units = documented_units(SourceFile(path, text, "", license=None, commit=None, split=""))
    assert len({unit["id"] for unit in units}) == len(units)
    return {unit["source"]["qualname"]: unit for unit in units}


@pytest.mark.parametrize("path", FOUND)
def test_functions_and_classes_are_found_with_their_names_and_lines(path):
    text, expected = FOUND[path]
    whole, *found = units_of(path, text).values()
    assert (whole["kind"], whole["source"]["lines"]) == ("file", [1, text.count("\n")])
    assert [(unit["kind"], unit["source"]["qualname"], *unit["source"]["lines"]) for unit in found] == expected
    for unit in found:  # all of a function, and what is above it
        if unit["kind"] == "function":
            first, last = unit["source"]["lines"]
            own = [line.strip() for line in text.split("\n")[first - 1 : last]]
            assert [line.strip() for line in unit["code"].split("\n")][-len(own) :] == own


@pytest.mark.parametrize(
    ("path", "name", "begins"),
    [
        ("pile.go", "Stack", "// Stack is a pile.\ntype Stack[T any] struct {\n\titems"),
        ("pile.go", "Height", "// Height is counted in items.\nHeight int"),
        ("pile.go", "New", "func New()"),
        ("shape.rs", "Point", "/// A point.\n#[derive(Debug)]\npub struct Point"),
        ("shape.rs", "Unit", "struct Unit;"),
        ("Circle.java", "Circle", "/** A circle. */\n@Deprecated\npublic class"),
        ("Circle.java", "Circle.area", "@Override\npublic double area() {\n    Runnable"),
        ("list.c", "other_t", "typedef struct {"),
        ("list.c", "add", "/* Adds a node. */\nstatic struct node *add("),
        ("box.hpp", "Box.area", "// Area of it.\ntemplate <typename T>\ndouble"),
        ("Cart.cs", "Cart", "/// <summary>A cart.</summary>\n[Serializable]\npublic class Cart\n{"),
        ("tree.rb", "Garden", "module Garden"),
        ("tree.rb", "Garden.Tree", "# A tree.\nclass Tree"),
        ("tree.rb", "Garden.Tree.depth", "# How deep.\ndef depth"),
        ("User.php", "User.hello", "/** Says hello. */\npublic function hello"),
    ],
)
def test_comments_and_attributes_that_touch_a_definition_belong_to_it(path, name, begins):
    assert units_of(path, FOUND[path][0])[name]["code"].startswith(begins)


@pytest.mark.parametrize(
    ("path", "name", "code"),
    [
        ("shape.rs", "Shape", "trait Shape {\n    fn area(&self) -> f64;\n    fn twice(&self) -> f64 {\n}"),
        (
            "box.hpp", "Box",
            "// A box.\ntemplate <typename T>\nclass Box : public Base {\n public:\n  Box() = default;\n"
            "  ~Box() { free(); }\n  T& get(int i) const { return v[i]; }\n  bool operator==(const Box& other) const {"
            "\n private:\n  std::vector<T> v;\n};",
        ),
        (
            "Cart.cs", "Cart",
            "/// <summary>A cart.</summary>\n[Serializable]\npublic class Cart\n{\n    public int Count { get; set; }\n"
            "    /// <summary>Adds.</summary>\n    public void Add(int x)\n    public int Twice() => 2 * Count;\n}",
        ),
        ("tree.rb", "Garden.Tree", "# A tree.\nclass Tree < Base\n  # How deep.\n  def depth(node)\n\n"
                                   "  def self.plant; new; end\nend"),
    ],
)  # fmt: skip
def test_a_class_is_shown_without_the_bodies_of_its_functions(path, name, code):
    assert units_of(path, FOUND[path][0])[name]["code"] == code


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (
            "pile.go",
            "// Package pile keeps things.\ntype Stack[T any] struct {\nHeight int\nShape  interface{ Area() float64 }"
            "\nfunc (s *Stack[T]) Push(item T) {\nfunc New() *Stack[int] { return nil }\nvar drained = func() {}",
        ),
        ("list.c", "/* Lists. */\n} other_t;\nstatic struct node *add(struct list *l, int (*cb)(int))"),
        ("Cart.cs", "public class Cart\npublic void Add(int x)\npublic int Twice() => 2 * Count;"),
        ("User.php", "class User extends Model\npublic function hello(string $to): string\n"
                     "function helper($x) { return $x; }"),
    ],
)  # fmt: skip
def test_a_file_says_what_its_top_says_and_what_it_defines(path, code):
    assert units_of(path, FOUND[path][0])[None]["code"] == f"# {path}\n{code}"


def test_a_comment_behind_a_statement_belongs_to_that():
    text = "int limit = 3; // items\nint add(void) { return 1; }\n"
    assert units_of("near.c", text)["add"]["code"] == "int add(void) { return 1; }"


def test_what_cannot_be_parsed_is_read_around():
    text = "int before(void) { return 1; }\nFOO(bar { ;;; ]] \nint after(void) {\n  return 2;\n}\n"
    assert {"before"} <= units_of("odd.c", text).keys()
    deep = "int x = " + "(\n" * 3000 + "1" + ")" * 3000 + ";\nint after(void) { return 2; }\n"
    assert units_of("deep.c", deep).keys() == {None, "after"}
    assert units_of("empty.go", "package empty\n").keys() == {None}


@pytest.mark.parametrize("path", FOUND)
def test_a_text_with_a_piece_missing_anywhere_still_has_units(path):
    text, _ = FOUND[path]
    for start in range(0, len(text), 3):
        for missing in (1, 9, len(text)):
            units_of(path, text[:start] + text[start + missing :])


UNNAMED = {
    "a.go": (
        "package a\n\n// Handles it.\nvar handler = func(w int) {\n\tx()\n}\n\n"
        "var (\n\ta = func() {\n\t\ty()\n\t}\n\tb = 1\n)\n",
        {"handler": (4, 6), "a": (9, 11)},
    ),
    "a.php": (
        "<?php\n$app->get('/v1/tides', function ($r) {\n    return 1;\n});\n"
        "Route::post('/x', auth(), function () {\n    y();\n});\n"
        "$f = function () {\n    return 2;\n};\n"
        "add_action(NAME, function () {\n    x();\n});\n$y = array_map(fn($a) => $a, $x);\n",
        {"$app->get('/v1/tides')": (2, 4), "Route.post('/x')": (5, 7), "$f": (8, 10), "add_action()": (11, 13)},
    ),
    "a.rb": (
        "get '/tides' do\n  body\nend\nSQUARE = ->(x) { x * x }\nnamespace :db do\n  task(:go) { x }\nend\n"
        "Point = Struct.new(:x) do\n  def sum\n    x\n  end\nend\nputs 1\nrows.each { |row| p row }\n",
        {"get('/tides')": (1, 3), "SQUARE": (4, 4), "namespace(:db)": (5, 7), "sum": (9, 11)},
    ),
    "a.cpp": ("auto twice = [](int x) {\n  return 2 * x;\n};\nint g = 3;\nint h(int);\n", {"twice": (1, 3)}),
    "a.rs": ("static TWICE: fn(i32) -> i32 = |x| {\n    2 * x\n};\nconst N: i32 = 1;\n", {"TWICE": (1, 3)}),
    "A.java": (
        "class A {\n  Runnable go = () -> {\n    x();\n  };\n"
        "  Runnable old = new Runnable() {\n    public void run() {}\n  };\n  int n = 1;\n}\n",
        {"A": (1, 9), "A.go": (2, 4), "A.run": (6, 6)},
    ),
    "A.cs": (
        "class A\n{\n    Func<int, int> Twice = x => 2 * x;\n}\n"
        'app.MapGet("/tides", () =>\n{\n    return 1;\n});\nvar y = 3;\n',
        {"A": (1, 4), "A.Twice": (3, 3), 'app.MapGet("/tides")': (5, 8)},
    ),
}


@pytest.mark.parametrize("path", UNNAMED)
def test_functions_without_a_name_are_known_by_what_holds_them(path):
    text, expected = UNNAMED[path]
    found = units_of(path, text)
    assert {name: tuple(unit["source"]["lines"]) for name, unit in found.items() if name} == expected
    if path == "a.go":
        assert found["handler"]["code"] == "// Handles it.\nvar handler = func(w int) {\n\tx()\n}"


def test_calls_in_calls_are_read_in_a_moment():
    text = "f(" * 2000 + "1" + ")" * 2000 + "\ndef after\n  1\nend\n"
    assert "after" in units_of("a.rb", text)
