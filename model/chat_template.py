"""A model's chat template: Jinja out of a downloaded file, rendered in a sandbox to the text that transformers gives.

Follows transformers' utils/chat_template_utils.py in everything that a template can see: filters, globals, block
trimming, `{% generation %}`. A template is code from a stranger: it sees plain data, can open no file, and cannot
loop for ever over `range`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from common.console import UserError

MAX_STEPS = 100_000  # over all range(...) of one rendering; Jinja's sandbox bounds each alone, but not nested ones


class _Generation(jinja2.ext.Extension):
    """`{% generation %} … {% endgeneration %}`: marks the assistant's words for other tools; prints what is inside."""

    tags = {"generation"}  # noqa: RUF012 (Jinja's own way)

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        """The block becomes a scope: what is set inside stays inside."""
        line = next(parser.stream).lineno
        return jinja2.nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def compile_template(source: str) -> jinja2.Template:
    """A template ready to render. UserError when it is not valid Jinja."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        return environment.from_string(source)
    except (jinja2.TemplateError, RecursionError) as error:
        raise UserError(f"the model's chat template is not valid: {error}") from None


def render_template(template: jinja2.Template, values: dict) -> str:
    """The text. UserError with the template's own reason, whatever it raises."""
    try:
        return template.render(values | {"range": _bounded_range()})
    except jinja2.sandbox.SecurityError as error:
        raise UserError(f"the model's chat template does what a template must not: {error}") from None
    except Exception as error:  # a template is free to add a number to a word, and to fail in any other way
        reason = error if isinstance(error, jinja2.TemplateError) else f"{type(error).__name__}: {error}"
        raise UserError(f"the model's chat template refuses these messages: {reason}") from None


def _bounded_range() -> Callable[..., range]:
    left = MAX_STEPS

    def bounded(*bounds: int) -> range:
        nonlocal left
        steps = range(*bounds)
        left -= min(len(steps[: MAX_STEPS + 1]), MAX_STEPS + 1)
        if left < 0:
            raise jinja2.sandbox.SecurityError(f"it loops over more than {MAX_STEPS:,} numbers")
        return steps

    return bounded


def _to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False) -> str:
    """Jinja's own filter escapes HTML; a chat is none."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str):
    raise jinja2.TemplateError(message)
