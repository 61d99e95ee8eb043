"""The floor: asyncssh connects to every host and runs ``true``, options parsed once."""

import asyncio
import json
import sys
from typing import Any

import asyncssh


async def main(lab: dict[str, Any]) -> None:
    """Run one command on every host of ``{hosts, key, known_hosts}``."""
    options = asyncssh.SSHClientConnectionOptions(
        username="root",
        client_keys=[asyncssh.read_private_key(lab["key"])],
        known_hosts=asyncssh.read_known_hosts(lab["known_hosts"]),
        agent_path=None,
        config=None,
    )
    slots = asyncio.Semaphore(100)

    async def one(name: str, hostname: str, port: int) -> None:
        async with slots, asyncssh.connect(hostname, port, options=options) as connection:
            await connection.run("true", check=True)

    await asyncio.gather(*(one(h["name"], h["hostname"], h["port"]) for h in lab["hosts"]))


with open(sys.argv[1]) as file:
    described = json.load(file)
asyncio.run(main(described))
