"""Jinja2: strict, in a sandbox, bounded."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from fleet.render import Renderer, RenderError

RENDERER = Renderer()


def test_values_render_with_a_hosts_variables() -> None:
    """Expressions, filters and loops work as operators know them."""
    text = "{{ a + 1 }}-{% for x in xs %}{{ x | upper }}{% endfor %}-{{ missing | default('d') }}"
    assert RENDERER.text(text, {"a": 1, "xs": ["p", "q"]}) == "2-PQ-d"


def test_a_result_is_not_rendered_again() -> None:
    """A variable that holds a template is data."""
    assert RENDERER.text("{{ x }}", {"x": "{{ 7 * 7 }}"}) == "{{ 7 * 7 }}"


@pytest.mark.parametrize(
    "text",
    [
        "{{ nope }}", "{{ a.nope }}", "{{ 1 / 0 }}", "{{ 1 +", "{% include 'nope' %}",
        "{{ ''.__class__.__mro__ }}", "{{ xs.append(1) }}", "{{ cycler.__init__.__globals__ }}",
        "{{ lipsum(10**9) }}", "{{ 'x' * 10**9 }}", "{{ 10 ** (10 ** 10) }}", "{{ [0] * 10**9 }}",
        "{{ '%999999999d' % 1 }}", "{{ '%*d' % (999999999, 1) }}", "{{ 'x'.ljust(10**9) }}",
        "{{ '{:>999999999}'.format(1) }}", "{{ 'x' | center(10**9) }}",
        "{{ '%999999999d' | format(1) }}", "{{ range(10**9) | list }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(90000) %}0123456789{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    ],
)  # fmt: skip
def test_what_fails_or_would_not_end_is_an_error(text: str) -> None:
    """Undefined names, escapes from the sandbox and runaway templates stop within a second."""
    start = time.monotonic()
    with pytest.raises(RenderError):
        RENDERER.text(text, {"a": {}, "xs": [1]})
    assert time.monotonic() - start < 2


def test_the_projects_templates_come_first(tmp_path: Path) -> None:
    """A project's template replaces the starter's; one that is nowhere is an error."""
    for name in ("project", "starter"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.j2").write_text(name)
    (tmp_path / "starter" / "b.j2").write_text("{{ x }}\n")
    renderer = Renderer([tmp_path / "project", tmp_path / "starter"])
    assert renderer.file("a.j2", {}) == "project"
    assert renderer.file("b.j2", {"x": 1}) == "1\n"
    with pytest.raises(RenderError, match="no template"):
        renderer.file("c.j2", {})
    with pytest.raises(RenderError, match="no template"):
        renderer.file("../project/a.j2", {})
