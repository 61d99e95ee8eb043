"""The floor: asyncssh connects to every host and runs ``true``, options parsed once."""

import asyncio
import json
import sys

import asyncssh


async def main() -> None:
    """Read {hosts, key, known_hosts} from the file named first and run one command a host."""
    with open(sys.argv[1]) as file:
        lab = json.load(file)
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


asyncio.run(main())
