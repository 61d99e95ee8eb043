"""The job that every tool does, the project and inventories that describe it, and its commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
FLEET = str(Path(sys.executable).parent / "fleet")
INTENT = """\
username: root
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
    nftables:
      inet/bench: |
        chain input {
          type filter hook input priority 10; policy accept;
          iifname "br-bench" tcp dport 23 drop
        }
  sysctl:
    net.ipv4.ip_forward: 1
    net.ipv4.conf.all.rp_filter: 2
    net.ipv4.tcp_rmem: 4096 87380 16777216
"""
TOOLS = ["bare", "fleet", "ansible", "ansible, one read", "pyinfra", "pyinfra, one read"]
#: Takes the job off a host, so that the next tool's first run is a first run.
CLEAN = """\
ip link del br-bench; ip link del bench0; nft delete table inet bench
rm -f /etc/nftables.d/bench.nft /etc/sysctl.d/90-bench.conf
mkdir -p /etc/nftables.d /etc/sysctl.d
sysctl -qw net.ipv4.ip_forward=0 net.ipv4.conf.all.rp_filter=0
sysctl -qw net.ipv4.tcp_rmem='4096 131072 6291456'
"""
#: Fails unless the job is done; asks the kernel, as no tool here is to be believed.
DONE = """\
set -e
ip -d link show up dev br-bench | grep -q 'stp_state 1'
ip -o address show dev br-bench | grep -q 'inet 198.19.250.1/24'
ip link show up dev bench0 | grep -q bench0@bench1
ip link show up dev bench1 | grep -q 'master br-bench'
nft list table inet bench | grep -q 'iifname "br-bench" tcp dport 23 drop'
test "$(cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/all/rp_filter)" = "1
2"
test "$(tr '\\t' ' ' </proc/sys/net/ipv4/tcp_rmem)" = '4096 87380 16777216'
"""


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
    (inventory / "defaults.yaml").write_text(INTENT)
    return names


def describe(lab: str, project: Path, names: Sequence[str], directory: Path) -> dict[str, Path]:
    """Write the lab's hosts as each rival's inventory and return the files by rival."""
    from fleet.lab import Lab

    opened = Lab(lab, project)
    hosts = [{"name": name, **opened.ssh_overrides(name)} for name in names]
    key, known_hosts = str(hosts[0]["client_keys"][0]), str(hosts[0]["known_hosts"])
    files = {tool: directory / f"{tool}.inventory" for tool in ("bare", "ansible")}
    files["pyinfra"] = directory / "inventory_pyinfra.py"
    rows = [{"name": h["name"], "hostname": h["hostname"], "port": h["port"] or 22} for h in hosts]
    files["bare"].write_text(json.dumps({"key": key, "known_hosts": known_hosts, "hosts": rows}))
    files["ansible"].write_text(
        "".join(
            f"{r['name']} ansible_host={r['hostname']} ansible_port={r['port']}\n" for r in rows
        )
        + f"[all:vars]\nansible_user=root\nansible_ssh_private_key_file={key}\n"
        f"ansible_ssh_common_args='-o UserKnownHostsFile={known_hosts}'\n"
        "ansible_python_interpreter=/usr/bin/python3\n"
    )
    data = {"ssh_user": "root", "ssh_key": key, "ssh_known_hosts_file": known_hosts}
    listed = [
        (r["name"], {**data, "ssh_hostname": r["hostname"], "ssh_port": r["port"]}) for r in rows
    ]
    files["pyinfra"].write_text(f"hosts = {listed!r}\n")
    return files


def commands(
    lab: str, project: Path, files: dict[str, Path], rivals: Path
) -> dict[str, tuple[list[str], list[str]]]:
    """Return what each tool is called with to do the job, and to find that it is done."""
    where = ["--project", str(project), "--lab", lab]
    bare = [sys.executable, str(HERE / "rivals/bare.py"), str(files["bare"])]
    found = {
        "bare": (bare, bare),
        "fleet": (
            [FLEET, "rollout", *where, "--yes", "--wave", "100%", "--canary", "0"],
            [FLEET, "audit", *where],
        ),
    }
    # Forks: Ansible's documentation has them raised from 5 for many hosts.
    ansible = [str(rivals / "ansible-playbook"), "-i", str(files["ansible"]), "-f", "50"]
    pyinfra = [str(rivals / "pyinfra"), "-y", str(files["pyinfra"])]
    for tool, program, file in (
        ("ansible", ansible, "ansible.yml"),
        ("ansible, one read", ansible, "ansible_one_read.yml"),
        ("pyinfra", pyinfra, "pyinfra_deploy.py"),
        ("pyinfra, one read", pyinfra, "pyinfra_one_read.py"),
    ):
        words = [*program, str(HERE / "rivals" / file)]
        found[tool] = (words, words)
    return found
