"""Compare fleet, Ansible, pyinfra and bare asyncssh on one job against real sshds, in one run.

The job: a bridge with STP and an address, a veth pair with one end in it, three sysctls. Every tool
meets hosts that lack it (first), then hosts that have it (again); bare asyncssh runs ``true``.
Run as root, with the tools on PATH or in the directory named by --rivals:

    python bench/compare.py --sizes 20,100 --rivals DIR/bin
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
FLEET = Path(sys.executable).parent / "fleet"
NETWORK = """\
data:
  fleet:
    management: {interface: eno1}
  network:
    version: 2
    bridges:
      br-bench:
        addresses: [198.19.250.1/24]
        interfaces: [bench1]
        parameters: {stp: true}
    virtual-ethernets:
      bench0: {peer: bench1}
      bench1: {peer: bench0}
  sysctl:
    net.ipv4.ip_forward: 1
    net.ipv4.conf.all.rp_filter: 2
    net.ipv4.tcp_rmem: 4096 87380 16777216
"""


class Measured:
    """One command's wall and controller CPU seconds, whole process tree, and its exit code."""

    def __init__(self, argv: list[str], good: tuple[int, ...], scratch: str) -> None:
        # A control path of its own: nobody's connections outlive a run, as an audit comes hours
        # after the last one.
        control = tempfile.mkdtemp(dir=scratch)
        env = {"ANSIBLE_PIPELINING": "1", "ANSIBLE_HOME": scratch, "HOME": scratch}
        env["ANSIBLE_SSH_CONTROL_PATH_DIR"] = control
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.monotonic()
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={**os.environ, **env},
        )
        self.wall = time.monotonic() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        if done.returncode not in good:
            tail = (done.stdout + done.stderr)[-2000:]
            raise SystemExit(f"{' '.join(argv[:6])} … exited {done.returncode}:\n{tail}")


def write_project(directory: Path, size: int) -> list[str]:
    """Write a fleet project of ``size`` equal hosts and return their names."""
    inventory = directory / "inventory"
    inventory.mkdir(parents=True)
    names = [f"b{number:03}" for number in range(size)]
    hosts = [
        f"{name}:\n  hostname: 198.18.{n // 200 + 1}.{n % 200 + 1}\n  groups: [all-hosts]\n"
        f"  data:\n    network:\n      ethernets:\n        eno1: {{}}\n"
        for n, name in enumerate(names)
    ]
    (inventory / "hosts.yaml").write_text("".join(hosts))
    (inventory / "groups.yaml").write_text("all-hosts: {}\n")
    (inventory / "defaults.yaml").write_text("username: root\n" + NETWORK)
    return names


def describe(lab: str, project: Path, names: list[str], directory: Path) -> dict[str, Path]:
    """Write the lab's hosts as each rival's inventory and return the files by rival."""
    from fleet.lab import Lab

    opened = Lab(lab, project)
    hosts = [{"name": name, **opened.ssh_overrides(name)} for name in names]
    key, known_hosts = str(hosts[0]["client_keys"][0]), str(hosts[0]["known_hosts"])
    files = {tool: directory / f"{tool}.inventory" for tool in ("bare", "ansible")}
    files["pyinfra"] = directory / "inventory_pyinfra.py"
    rows = [{"name": h["name"], "hostname": h["hostname"], "port": h["port"] or 22} for h in hosts]
    files["bare"].write_text(json.dumps({"key": key, "known_hosts": known_hosts, "hosts": rows}))
    common = f"-o UserKnownHostsFile={known_hosts} -o ControlMaster=auto -o ControlPersist=5s"
    files["ansible"].write_text(
        "".join(
            f"{r['name']} ansible_host={r['hostname']} ansible_port={r['port']}\n" for r in rows
        )
        + f"[all:vars]\nansible_user=root\nansible_ssh_private_key_file={key}\n"
        f"ansible_ssh_common_args={common!r}\nansible_python_interpreter=/usr/bin/python3\n"
    )
    data = {"ssh_user": "root", "ssh_key": key, "ssh_known_hosts_file": known_hosts}
    listed = [
        (r["name"], {**data, "ssh_hostname": r["hostname"], "ssh_port": r["port"]}) for r in rows
    ]
    files["pyinfra"].write_text(f"hosts = {listed!r}\n")
    return files


def commands(
    lab: str, project: Path, files: dict[str, Path], rivals: Path
) -> dict[str, tuple[list[str], list[str], tuple[int, ...]]]:
    """Return (first run, again, good exit codes) of each tool."""
    fleet = [str(FLEET)]
    where = ["--project", str(project), "--lab", lab]
    ansible = [str(rivals / "ansible-playbook"), "-i", str(files["ansible"]), "-f", "50"]
    ansible += [str(HERE / "rivals/ansible.yml")]
    pyinfra = [str(rivals / "pyinfra"), "-y", str(files["pyinfra"])]
    pyinfra += [str(HERE / "rivals/pyinfra_deploy.py")]
    bare = [sys.executable, str(HERE / "rivals/bare.py"), str(files["bare"])]
    return {
        "bare": (bare, bare, (0,)),
        "fleet": (
            [*fleet, "rollout", *where, "--yes", "--wave", "100%", "--canary", "0"],
            [*fleet, "audit", *where],
            (0,),
        ),
        "ansible": (ansible, ansible, (0,)),
        "pyinfra": (pyinfra, pyinfra, (0,)),
    }


def clean(lab: str, project: Path, names: list[str]) -> None:
    """Take the job off every host again, so that the next tool's first run is a first run."""
    script = (
        "ip link del br-bench; ip link del bench0; sysctl -qw net.ipv4.ip_forward=0 "
        "net.ipv4.conf.all.rp_filter=0; sysctl -qw net.ipv4.tcp_rmem='4096 131072 6291456'; true"
    )
    for name in names:
        argv = [str(FLEET), "lab", "exec", "--project", str(project), "--lab", lab, name]
        subprocess.run([*argv, "--", "sh", "-c", script], check=True, capture_output=True)


def measure(size: int, rivals: Path, runs: int, tools: list[str]) -> dict[str, dict[str, float]]:
    """Bring a lab of ``size`` hosts up, run every tool, and return medians in seconds."""
    lab = f"bench{os.getpid()}"
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        project = directory / "project"
        names = write_project(project, size)
        lab_argv = ["--project", str(project), "--lab", lab]
        subprocess.run([str(FLEET), "lab", "up", *lab_argv], check=True, stdout=sys.stderr)
        try:
            files = describe(lab, project, names, directory)
            for tool, (first, again, good) in commands(lab, project, files, rivals).items():
                if tool not in tools:
                    continue
                prefix = enter(lab, project) if tool != "fleet" else []
                print(f"{size} hosts: {tool}", file=sys.stderr)
                row = {"first": Measured([*prefix, *first], good, scratch).wall}
                # Ansible's takes a minute at 100 hosts: once is enough to see it.
                times = 1 if tool == "ansible" else runs
                repeated = [Measured([*prefix, *again], good, scratch) for _ in range(times)]
                row["again"] = statistics.median(m.wall for m in repeated)
                row["again cpu"] = statistics.median(m.cpu for m in repeated)
                results[tool] = row
                clean(lab, project, names)
        finally:
            subprocess.run([str(FLEET), "lab", "down", *lab_argv], check=True, stdout=sys.stderr)
    return results


def enter(lab: str, project: Path) -> list[str]:
    """Return the argv prefix that runs a command where the lab's controller stands."""
    from fleet.lab import Lab

    return Lab(lab, project).controller_prefix()


def report(sizes: list[int], measured: dict[int, dict[str, dict[str, float]]]) -> None:
    """Print medians, ratios against bare asyncssh, slopes and the fixed part."""
    print(f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, ", end="")
    print(f"Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}")
    for size in sizes:
        bare = measured[size]["bare"]["again"]
        print(f"\n{size} hosts      first s   again s   again ÷ bare   CPU ms a host (again)")
        for tool, row in measured[size].items():
            print(
                f"  {tool:10} {row['first']:9.2f} {row['again']:9.2f} {row['again'] / bare:14.2f}"
                f" {1000 * row['again cpu'] / size:15.1f}"
            )
    if len(sizes) < 2:
        return
    low, high = sizes[0], sizes[-1]
    print(f"\nper host, as a slope between {low} and {high} hosts; fixed part apart")
    slopes = {
        tool: (measured[high][tool]["again"] - measured[low][tool]["again"]) / (high - low)
        for tool in measured[high]
    }
    for tool, slope in slopes.items():
        fixed = measured[low][tool]["again"] - slope * low
        print(
            f"  {tool:10} {1000 * slope:9.1f} ms   {slope / slopes['bare']:6.2f} × bare"
            f"   fixed {fixed:6.2f} s"
        )
    for rival in ("ansible", "pyinfra"):
        if rival in measured[high]:
            ratio = measured[high][rival]["again"] / measured[high]["fleet"]["again"]
            print(f"  at {high} hosts fleet is {ratio:.1f} × faster than {rival}")


def main() -> None:
    """Run the comparison named on the command line and print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", default="20,100")
    parser.add_argument("--runs", type=int, default=3, help="repetitions of the second run")
    parser.add_argument("--rivals", type=Path, default=Path(sys.executable).parent)
    parser.add_argument("--tools", default="bare,fleet,ansible,pyinfra")
    chosen = parser.parse_args()
    sizes = [int(size) for size in chosen.sizes.split(",")]
    tools = chosen.tools.split(",")
    measured = {size: measure(size, chosen.rivals, chosen.runs, tools) for size in sizes}
    report(sizes, measured)


if __name__ == "__main__":
    main()
