"""The plain netlink client against the kernel."""

from __future__ import annotations

import errno
import subprocess

import pytest
from pictures import Namespace

from fleet.host.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, Netlink, attributes, nest, pack_text

pytestmark = pytest.mark.kernel

NEWLINK, GETLINK, GETROUTE, GETADDR = 16, 18, 26, 22


def test_dumps_every_device(namespace: Namespace) -> None:
    """A dump has one message per device, however many buffers that takes."""
    script = "\n".join(f"link add a{n} type veth peer name b{n}" for n in range(100))
    subprocess.run(["ip", "-n", namespace.name, "-b", "-"], input=script, text=True, check=True)
    messages = namespace.system.netlink.dump(GETLINK, bytes(16))
    names = {attributes(payload, 16)[3].rstrip(b"\0").decode() for _, payload in messages}
    assert names == {"lo", *(f"{end}{n}" for end in "ab" for n in range(100))}


def test_errors_carry_the_kernels_words(namespace: Namespace) -> None:
    """A refusal has the errno and the kernel's own text."""
    netlink = namespace.system.netlink
    name = pack_text(3, "x0")
    with pytest.raises(OSError) as refused:
        netlink.request(NEWLINK, NLM_F_CREATE | NLM_F_EXCL, bytes(16) + name)
    assert refused.value.errno in (errno.EOPNOTSUPP, errno.EINVAL)
    with pytest.raises(OSError, match="device") as missing:
        netlink.get(GETLINK, bytes(16) + name)
    assert missing.value.errno == errno.ENODEV
    unknown = nest(18, pack_text(1, "no-such-kind"))
    with pytest.raises(OSError, match="Unknown device type"):
        netlink.request(NEWLINK, NLM_F_CREATE | NLM_F_EXCL, bytes(16) + name + unknown)


def test_goes_on_after_a_refusal(namespace: Namespace) -> None:
    """An error leaves nothing behind that the next answer could be taken for."""
    netlink = namespace.system.netlink
    for _ in range(3):
        with pytest.raises(OSError):
            netlink.get(GETLINK, bytes(16) + pack_text(3, "x0"))
        assert len(netlink.dump(GETLINK, bytes(16))) == 1


def test_a_small_buffer_grows(namespace: Namespace) -> None:
    """An answer that does not fit is asked for again with more room."""
    netlink = namespace.system.netlink
    netlink._size = 64
    assert len(netlink.dump(GETLINK, bytes(16))) == 1
    assert netlink._size > 64
    netlink._size = 64
    (answer,) = netlink.get(GETLINK, bytes(16) + pack_text(3, "lo"))
    assert attributes(answer[1], 16)[3] == b"lo\0"


def test_is_in_the_namespace_of_its_system(namespace: Namespace) -> None:
    """A socket stays in the namespace it was opened in, and this thread in its own."""
    here = Netlink()
    try:
        assert len(namespace.system.netlink.dump(GETLINK, bytes(16))) == 1
        assert len(here.dump(GETADDR, bytes(8))) >= 1
    finally:
        here.close()


def test_changes_during_dumps(namespace: Namespace) -> None:
    """Dumps taken while another process makes and deletes devices are whole."""
    script = "\n".join(f"link add a{n} type veth peer name b{n}\nlink del a{n}" for n in range(150))
    busy = subprocess.Popen(
        ["ip", "-n", namespace.name, "-b", "-"], stdin=subprocess.PIPE, text=True
    )
    assert busy.stdin is not None
    busy.stdin.write(script)
    busy.stdin.close()
    while busy.poll() is None:
        messages = namespace.system.netlink.dump(GETLINK, bytes(16))
        names = [attributes(payload, 16)[3] for _, payload in messages]
        assert b"lo\0" in names
        assert len(names) == len(set(names))
        namespace.system.netlink.dump(GETROUTE, bytes(12))
    assert busy.wait() == 0
