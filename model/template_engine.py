"""Compiles and renders Jinja chat templates from downloaded files, in a sandbox, to the same text as transformers.

Follows transformers' utils/chat_template_utils.py in everything a template can observe: filters, globals, block
trimming, `{% generation %}`. A template is untrusted code: it sees plain data only, cannot open files, and cannot loop
forever over `range`.
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

MAX_STEPS = 100_000  # over all range(...) calls of one rendering; Jinja bounds each call, but not nested loops


class _Generation(jinja2.ext.Extension):
    """`{% generation %} … {% endgeneration %}` marks the assistant's text for other tools; here it only renders it."""

    tags = {"generation"}  # noqa: RUF012 (Jinja's own convention)

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        """The block becomes a scope: variables set inside stay inside."""
        line = next(parser.stream).lineno
        return jinja2.nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def compile_template(source: str) -> jinja2.Template:
    """Compile a template. UserError if it is not valid Jinja."""
    # immutable: a template cannot change the lists that it is given either
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    # what transformers adds to Jinja
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        return environment.from_string(source)
    except (jinja2.TemplateError, RecursionError) as error:
        raise UserError(f"the model's chat template is not valid: {error}") from None


def render_template(template: jinja2.Template, variables: dict) -> str:
    """The rendered text. UserError with the template's own reason, whatever exception it raises."""
    try:
        return template.render(variables | {"range": _bounded_range()})
    except jinja2.exceptions.SecurityError as error:
        raise UserError(f"the model's chat template does something a template must not do: {error}") from None
    except Exception as error:  # a template may add a number to a string, or fail in any other way
        reason = error if isinstance(error, jinja2.TemplateError) else f"{type(error).__name__}: {error}"
        raise UserError(f"the model's chat template refuses these messages: {reason}") from None


def _bounded_range() -> Callable[..., range]:
    """`range` with a budget of MAX_STEPS over all its calls."""
    left = MAX_STEPS

    def bounded(*bounds: int) -> range:
        nonlocal left
        # len(range) fails beyond 2⁶³: count at most one step more than the budget
        steps = range(*bounds)
        left -= min(len(steps[: MAX_STEPS + 1]), MAX_STEPS + 1)
        if left < 0:
            raise jinja2.exceptions.SecurityError(f"it loops over more than {MAX_STEPS:,} numbers")
        return steps

    return bounded


def _to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False) -> str:
    """Jinja's own `tojson` escapes HTML; transformers' does not."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str):
    raise jinja2.TemplateError(message)
