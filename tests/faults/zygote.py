"""Starts helpers fast: a process that has the helper's code in memory, and forks one where asked.

Run as ``python -I -S zygote.py CODE PACKAGES DESCRIPTOR``. For each request on the socket, a line
of JSON with three file descriptors, it forks a process into the namespaces of a host, and answers
with its process id. The process is the helper itself; all it has beside the helper's own code is a
hook that asks the harness at named points what is to happen there.
"""

import ctypes
import json
import os
import signal
import socket
import sys
import time

CODE, PACKAGES, DESCRIPTOR = sys.argv[1], sys.argv[2], int(sys.argv[3])
sys.path.insert(0, CODE)
sys.path.append(PACKAGES)

import fleet.host.transactions.arm  # noqa: E402

fleet.host.transactions.arm.shortest_deadline = lambda changes, settle: 0.2

from pyroute2.iproute.linux import IPRoute  # noqa: E402,F401

from fleet.host import helper, protocol, registry  # noqa: E402
from fleet.host.planning import plan  # noqa: E402,F401
from fleet.host.reverting import restore, snapshot  # noqa: E402,F401
from fleet.host.transactions import (  # noqa: E402,F401
    apply,
    confirm,
    crash,
    persist,
    prepare,
    probe,
    recover,
    units,
    watchdog,
)

for entry in registry.KINDS:
    registry.load(entry.kind)


real_time = time.time


def set_clock():
    """Return the time of day as somebody has set it on this host."""
    try:
        with open("/run/faults-clock") as file:
            return real_time() + float(file.read())
    except OSError:
        return real_time()


time.time = set_clock
time.time_ns = lambda: int(set_clock() * 1e9)


def hook(places):
    def ask(name):
        if name not in places:
            return
        try:
            with socket.socket(socket.AF_UNIX) as harness:
                harness.connect("/run/faults")
                harness.sendall(name.encode() + b"\n")
                answer = harness.recv(100).decode()
        except OSError:
            return
        if answer.startswith("raise "):
            number = int(answer.split()[1])
            raise OSError(number, os.strerror(number))

    return ask


def connection(began, address):
    def op(session, request, report):
        return confirm.confirm(
            session.system, session.paths, request, lambda: confirm.Connection(began, address)
        )

    protocol.OPERATIONS["confirm"] = op


def enter(pid):
    libc = ctypes.CDLL(None, use_errno=True)
    spaces = [os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY) for name in ("net", "pid", "mnt")]
    for space in spaces:
        if libc.setns(space, 0):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(space)
    os.chdir("/")


def become(request, descriptors):
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    os.closerange(3, 256)
    if request.get("places"):
        crash.HOOK = hook(set(request["places"]))
    if request.get("connection"):
        connection(*request["connection"])
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)

    if request.get("unit"):
        return helper.unit_main(request["unit"])
    return helper.main()


def serve(harness):
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        data, descriptors, _, _ = socket.recv_fds(harness, 1 << 16, 3)
        if not data:
            return
        request = json.loads(data)
        read, write = os.pipe()
        if os.fork() == 0:
            status = 1
            try:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                harness.close()
                enter(request["pid"])
                child = os.fork()
                if child:
                    os.write(write, str(child).encode())
                    os._exit(0)
                os.close(write)
                os.setsid()
                status = become(request, descriptors)
            except BaseException:
                import traceback

                traceback.print_exc(file=sys.__stderr__)
            finally:
                os._exit(status)
        os.close(write)
        for descriptor in descriptors:
            os.close(descriptor)
        harness.sendall(os.read(read, 20) or b"0")
        os.close(read)


serve(socket.socket(fileno=DESCRIPTOR))
