from __future__ import annotations

from data.instruct.script.jsdoc import Described, Documentation, read_jsdoc, write_jsdoc

COMMENT = """/**
   * Adds two numbers.
   *
   * @func
   * @param {number} a - the first,
   *   on two lines
   *
   *   and more
   * @param {{x: number, y: {z: 1}}} [b={}] the second
   * @param b.x its part
   * @param rest
   * @return {number|undefined} Their sum.
   * @example
   *
   *      add(1, 2) // => 3
   */"""


def test_the_tags_of_parameters_and_of_the_result_are_read():
    assert read_jsdoc(COMMENT) == Documentation(
        (
            Described("{number}", "a", "the first, on two lines"),
            Described("{{x: number, y: {z: 1}}}", "b", "the second"),
            Described("", "rest", ""),
        ),
        Described("{number|undefined}", "", "Their sum."),
    )
    assert read_jsdoc("/** Only words, such as a@b.c. */") == read_jsdoc("") == Documentation((), None)


def test_a_comment_is_written_that_reads_the_same():
    documented = read_jsdoc(COMMENT)
    written = write_jsdoc("Adds two numbers.", documented)
    assert read_jsdoc(written) == documented
    assert written.split("\n")[:4] == [
        "/**",
        " * Adds two numbers.",
        " *",
        " * @param {number} a the first, on two lines",
    ]
    assert write_jsdoc("Does it.", Documentation((), None)) == "/**\n * Does it.\n */"
