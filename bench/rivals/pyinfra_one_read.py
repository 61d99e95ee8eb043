"""The job as nobody writes it: all that there is in one read, changes only where it differs."""

from pathlib import Path

from pyinfra import host
from pyinfra.facts.server import Command
from pyinfra.operations import server

found = host.get_fact(
    Command,
    "ip -j -d link show type bridge; ip -j -d link show type veth; "
    "ip -j addr show dev br-bench || true; "
    "sysctl net.ipv4.ip_forward net.ipv4.conf.all.rp_filter net.ipv4.tcp_rmem; "
    "nft list table inet bench || true",
)
found = (found or "").replace("\t", " ")
SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    "net.ipv4.conf.all.rp_filter": "2",
    "net.ipv4.tcp_rmem": "4096 87380 16777216",
}

commands = []
if '"br-bench"' not in found:
    commands.append("ip link add br-bench type bridge stp_state 1")
if '"bench0"' not in found:
    commands.append("ip link add bench0 type veth peer name bench1")
if '"master":"br-bench"' not in found:
    commands.append("ip link set bench1 master br-bench")
if "198.19.250.1" not in found:
    commands.append("ip addr add 198.19.250.1/24 dev br-bench")
    commands += [f"ip link set {name} up" for name in ("br-bench", "bench0", "bench1")]
commands += [
    f"sysctl -w {key}='{value}'"
    for key, value in SYSCTLS.items()
    if f"{key} = {value}" not in found
]
if 'iifname "br-bench" tcp dport 23 drop' not in found:
    table = (Path(__file__).parent / "bench.nft").read_text()
    commands.append(f"nft -f - <<'END'\n{table}END")
if commands:
    server.shell(name="the job", commands=commands)
