"""Which hosts a command is about: selectors over Nornir's inventory.

Hosts and groups that are named add up; every filter narrows.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from fleet.errors import UsageError

if TYPE_CHECKING:
    from nornir.core.inventory import Host, Inventory

    from fleet.cli.options import Scope

Predicate = Callable[["Host"], bool]


def select(inventory: Inventory, scope: Scope) -> list[str]:
    """Return the names of the hosts that a scope selects, in the inventory's order.

    Raises UsageError for a name the inventory does not have, for a filter that cannot be read,
    and where no host is left.
    """
    _known("host", scope.host, inventory.hosts)
    _known("group", scope.group, inventory.groups)
    predicates = [_filter(text) for text in scope.filter]
    if scope.nornir_filter:
        predicates.append(expression(scope.nornir_filter))
    chosen = [
        name
        for name, host in inventory.hosts.items()
        if _named(host, scope) and all(predicate(host) for predicate in predicates)
    ]
    if not chosen:
        raise UsageError(f"no host of the inventory's {len(inventory.hosts)} matches the selection")
    return chosen


def by_group(
    inventory: Inventory, hosts: Iterable[str], wanted: Sequence[str]
) -> dict[str, list[str]]:
    """Return hosts by group: those asked for, else each host's first-listed group."""
    grouped: dict[str, list[str]] = {}
    for name in hosts:
        host = inventory.hosts[name]
        own = next((group for group in wanted if host.has_parent_group(group)), "")
        first = host.groups[0].name if host.groups else "no group"
        grouped.setdefault(own or first, []).append(name)
    return grouped


def _known(noun: str, names: Iterable[str], known: Mapping[str, Any]) -> None:
    for name in names:
        if name not in known:
            near = get_close_matches(name, list(known), 1, 0.5)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UsageError(f"the inventory has no {noun} {name!r}{hint}")


def _named(host: Host, scope: Scope) -> bool:
    if not scope.host and not scope.group:
        return True
    return host.name in scope.host or any(host.has_parent_group(group) for group in scope.group)


def _filter(text: str) -> Predicate:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--filter {text!r} is not KEY=VALUE")
    # 12 may be a number in one host's data and a text in another's.
    spellings = [_f({key.strip(): value})]
    try:
        typed = ast.literal_eval({"true": "True", "false": "False"}.get(value, value))
    except (ValueError, SyntaxError):
        return spellings[0]
    if not isinstance(typed, str):
        spellings.append(_f({key.strip(): typed}))
    return lambda host: any(matches(host) for matches in spellings)


def _f(words: dict[str, Any]) -> Predicate:
    from nornir.core.filter import F

    rule = F(**words)

    def matches(host: Host) -> bool:
        try:
            return rule(host)
        except (AttributeError, TypeError):
            # Nornir's operators raise where a host lacks the data or has it in another type.
            return False

    return matches


def expression(text: str) -> Predicate:
    """Return the predicate of a Nornir filter: ``F(key=value)`` joined by ``&``, ``|`` and ``~``.

    The text is parsed, not evaluated: only F and literals are understood. Raises UsageError.
    """
    try:
        return _node(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        said = error.args[0] if error.args else "not an expression"
        raise UsageError(
            f"--nornir-filter {text!r} cannot be read: {said}; "
            'write it as \'F(groups__contains="rack3") & ~F(role="edge")\''
        ) from error


def _node(node: ast.expr) -> Predicate:
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.BitAnd, ast.BitOr)):
        both = isinstance(node.op, ast.BitAnd)
        left, right = _node(node.left), _node(node.right)
        if both:
            return lambda host: left(host) and right(host)
        return lambda host: left(host) or right(host)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Invert):
        inner = _node(node.operand)
        return lambda host: not inner(host)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "F":
        if node.args or any(word.arg is None for word in node.keywords):
            raise ValueError("F takes key=value only")
        return _f({word.arg: ast.literal_eval(word.value) for word in node.keywords if word.arg})
    raise ValueError("only F(…), &, | and ~ are understood")
