"""The helper on a real host: pushed, compiled there, checked, run, over a real sshd."""

from __future__ import annotations

import asyncio
from typing import Any

from server import Host

from fleet.helper.session import HelperSession


async def ask(host: Host, op: str = "hello", **fields: Any) -> dict[str, Any]:
    plugin = host.connection()
    try:
        session = await HelperSession.open(plugin)
        answer = await session.call(op, **fields)
        await session.close()
        return answer
    finally:
        await plugin.aclose()


def test_the_helper_is_pushed_once_and_answers(host: Host) -> None:
    first = asyncio.run(ask(host))
    assert first["root"] is True
