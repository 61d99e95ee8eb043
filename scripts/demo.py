#!/usr/bin/env python3
"""Shows fleet's main job on six real hosts in namespaces: plan, rollout, audit, drift, lock-out.

Whatever fleet says is checked with ip, bridge and ping inside the hosts. Ends with an exit code
other than 0 where any step did not do what it says; the lab is taken down in either case.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FLEET = str(ROOT / ".venv/bin/fleet")
LAB = f"demo{os.getpid()}"
#: How much of a long output is shown.
LINES = 36
BOLD, GREEN, PLAIN = ("\033[1m", "\033[32m", "\033[0m") if sys.stdout.isatty() else ("", "", "")


class Failed(Exception):
    """A step did not do what it says."""


def say(text: str) -> None:
    """Say what comes next."""
    print(f"\n{BOLD}── {text}{PLAIN}", flush=True)


def fleet(*words: str, expect: int = 0) -> str:
    """Run a fleet command, show it and what it printed; raise Failed for another exit code."""
    print(f"{BOLD}$ fleet {' '.join(words)}{PLAIN}", flush=True)
    done = subprocess.run(
        [FLEET, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120
    )
    lines = done.stdout.rstrip().splitlines()
    for line in lines[:LINES]:
        print(f"  {line}")
    if len(lines) > LINES:
        print(f"  … and {len(lines) - LINES} more lines")
    if done.returncode != expect:
        raise Failed(f"fleet {words[0]} exited {done.returncode}, not {expect}")
    return done.stdout


def inside(host: str, *argv: str) -> str:
    """Run a command inside a host and return what it printed."""
    argv = (FLEET, "lab", "exec", host, "--", *argv)
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30).stdout


def ip(host: str, *words: str) -> Any:
    """Return what ``ip -j -d`` says inside a host."""
    return json.loads(inside(host, "ip", "-j", "-d", *words) or "[]")


def check(what: str, holds: bool) -> None:
    """Show what an oracle found; raise Failed where it is not so."""
    if not holds:
        raise Failed(f"not so: {what}")
    print(f"  {GREEN}✓{PLAIN} {what}", flush=True)


def reaches(address: str) -> bool:
    """Say whether a ping from where the controller stands is answered."""
    argv = [*controller(), "ping", "-n", "-c", "1", "-W", "1", address]
    return subprocess.run(argv, capture_output=True).returncode == 0


def controller() -> list[str]:
    """Return the prefix that runs a command in the controller's network."""
    pid = Path(f"/run/fleet-lab/{LAB}/warden").read_text().split()[0]
    return ["nsenter", f"--net=/proc/{pid}/ns/net", "--"]


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition; return whether it came to hold in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return condition()


def has_bridge(host: str) -> bool:
    """Say whether a host has the bridge that its management address moves to."""
    return "br-mgmt" in {link["ifname"] for link in ip(host, "link", "show")}


def check_rack3(host: str, address: str) -> None:
    """Check with ip, bridge and ping that a host of rack3 is what the inventory says."""
    links = {link["ifname"]: link for link in ip(host, "addr", "show")}
    held = [item["local"] for item in links["br-mgmt"]["addr_info"]]
    check(f"{host}: ip: br-mgmt has {address}", address in held)
    check(f"{host}: ip: eno1 is a port of br-mgmt", links["eno1"].get("master") == "br-mgmt")
    guests = links["br-guests"]
    check(f"{host}: ip: br-guests has MTU 9000", guests["mtu"] == 9000)
    stp = guests["linkinfo"]["info_data"]["stp_state"]
    check(f"{host}: ip: br-guests runs STP", stp == 1)
    check(f"{host}: bridge: guests-dmz is isolated", isolated(host))
    check(f"{host}: ping: it answers across the router", reaches(address))


def isolated(host: str) -> bool:
    """Say whether bridge(8) calls the DMZ's port isolated."""
    out = inside(host, "bridge", "-j", "-d", "link", "show", "dev", "guests-dmz")
    return bool(json.loads(out)[0]["isolated"])


def default_route(host: str) -> Any:
    """Return a host's default route as ip has it."""
    return [(r["gateway"], r["dev"]) for r in ip(host, "route", "show", "default")]


def bring_up() -> None:
    say("Six hypervisors in three racks, as inventory/ describes them")
    fleet("lab", "up", "--lab", LAB)
    fleet("lab", "status")
    for host in ("hv-r1-1", "hv-r1-2", "hv-r2-1", "hv-r2-2", "hv-r3-1", "hv-r3-2"):
        _, rack, unit = host.split("-")
        address = f"198.18.{rack[1]}.1{unit}"
        check(f"{host}: ping: {address} answers across the router", reaches(address))


def plan_and_roll_out() -> None:
    say("What would change in rack3? A plan reads, and changes nothing (exit 3: changes pending)")
    fleet("plan", "--group", "rack3", expect=3)
    check("ip: hv-r3-1 has no br-mgmt yet", not has_bridge("hv-r3-1"))

    say("Roll it out, one canary first. The NIC with the management address moves into a bridge")
    out = fleet("rollout", "--group", "rack3", "--canary", "1", "--yes")
    check("the canary was a wave of its own", "wave 1 of 2 (canary)" in out)
    check_rack3("hv-r3-1", "198.18.3.11")
    check_rack3("hv-r3-2", "198.18.3.12")

    say("Does the rack match its intent? And is there anything left to do?")
    fleet("audit", "--group", "rack3")
    fleet("plan", "--group", "rack3")


def break_and_repair() -> None:
    say("Somebody changes a host by hand")
    for command in (
        "ip link set dev br-guests mtu 1400",
        "bridge link set dev guests-dmz isolated off",
    ):
        print(f"{BOLD}$ fleet lab exec hv-r3-2 -- {command}{PLAIN}")
        inside("hv-r3-2", *command.split())
    check(
        "ip: br-guests has MTU 1400", ip("hv-r3-2", "link", "show", "br-guests")[0]["mtu"] == 1400
    )
    check("bridge: guests-dmz is not isolated", not isolated("hv-r3-2"))

    say("The audit finds it (exit 3: drift)")
    out = fleet("audit", "--group", "rack3", expect=3)
    check("it names the MTU, as it should be and as it is", "9000" in out and "1400" in out)
    check("it names the port's isolation", "isolated" in out)
    check("hv-r3-1, which nobody touched, is not in it", "hv-r3-1" not in out)

    say("A rollout repairs it")
    fleet("rollout", "--host", "hv-r3-2", "--yes")
    check_rack3("hv-r3-2", "198.18.3.12")
    fleet("audit", "--group", "rack3")


def lock_out(project: Path) -> None:
    say("A mistake: a route that sends what goes to the operators into nowhere")
    hosts = project / "inventory/hosts.yaml"
    good = hosts.read_text()
    before, after = good.split("hv-r3-1:", 1)
    mistake = """  data:
    unit: 11
    network:
      bridges:
        br-mgmt:
          routes:
            - {to: default, via: 198.18.3.254}
            - {to: 198.19.255.0/24, via: 198.18.3.253}
"""
    after = after.replace("  data: {unit: 11}\n", mistake, 1)
    hosts.write_text(f"{before}hv-r3-1:{after}")
    print("  hv-r3-1: br-mgmt: routes: + {to: 198.19.255.0/24, via: 198.18.3.253}")
    routes = default_route("hv-r3-1"), ip("hv-r3-1", "route", "show")
    argv = [*controller(), "ping", "-n", "-i", "0.2", "-W", "1", "198.18.3.11"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as ping:
        fleet("rollout", "--host", "hv-r3-1", "--confirm-timeout", "10", "--yes", expect=4)
        answers = until(lambda: reaches("198.18.3.11"), 10)
        ping.send_signal(signal.SIGINT)
        seen = ping.communicate()[0]
    lost = next(line for line in seen.splitlines() if "packet loss" in line)
    sent, received = (int(part.split()[0]) for part in lost.split(",")[:2])
    check(f"ping: {sent - received} of {sent} pings lost: it was cut off", sent - received > 5)
    check("ping: it answers again; nobody but the host itself could do that", answers)
    check(
        "ip: its routes are as before",
        (default_route("hv-r3-1"), ip("hv-r3-1", "route", "show")) == routes,
    )
    hosts.write_text(good)

    say("With the mistake out of the intent, all is as it should be")
    fleet("audit", "--group", "rack3")


def main() -> int:
    """Run the demo and return its exit code."""
    if os.geteuid() != 0:
        print(
            "the demo needs root: its hosts are namespaces (make demo uses sudo)", file=sys.stderr
        )
        return 2
    begun = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="fleet-demo-") as scratch:
        # A copy: the demo makes a mistake in it, and the record of its runs goes there too.
        project = Path(scratch) / "project"
        for folder in ("inventory", "templates", "tasks"):
            shutil.copytree(ROOT / folder, project / folder)
        os.environ.update(FLEET_LAB=LAB, FLEET_PROJECT=str(project), NO_COLOR="1")
        try:
            bring_up()
            plan_and_roll_out()
            break_and_repair()
            lock_out(project)
        except (Failed, subprocess.SubprocessError, OSError) as error:
            print(f"\ndemo: FAILED: {error}", file=sys.stderr)
            return 1
        finally:
            say("The lab goes, and leaves nothing")
            fleet("lab", "down", "--lab", LAB)
    if Path(f"/run/fleet-lab/{LAB}").exists():
        print("demo: FAILED: the lab left files behind", file=sys.stderr)
        return 1
    print(f"\ndemo: every step did what it says; {time.monotonic() - begun:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
