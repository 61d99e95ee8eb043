"""The job as pyinfra's documentation writes it: its facts, and one operation for each resource."""

from pathlib import Path

from pyinfra import host
from pyinfra.facts.files import FileContents, Link
from pyinfra.facts.hardware import NetworkDevices
from pyinfra.operations import files, server

HERE = Path(__file__).parent
devices = host.get_fact(NetworkDevices)
stp = host.get_fact(FileContents, path="/sys/class/net/br-bench/bridge/stp_state")
master = host.get_fact(Link, path="/sys/class/net/bench1/master")
address = devices.get("br-bench", {}).get("ipv4", {}).get("address")

if "br-bench" not in devices or stp != ["1"]:
    server.shell(
        name="bridge",
        commands=[
            "ip link show br-bench >/dev/null 2>&1 || ip link add br-bench type bridge",
            "ip link set br-bench up type bridge stp_state 1",
        ],
    )
if "bench0" not in devices:
    server.shell(
        name="pair",
        commands=[
            "ip link add bench0 type veth peer name bench1",
            "ip link set bench0 up",
            "ip link set bench1 up",
        ],
    )
if not master or not master["link_target"].endswith("br-bench"):
    server.shell(name="port", commands=["ip link set bench1 master br-bench"])
if address != "198.19.250.1":
    server.shell(name="address", commands=["ip address add 198.19.250.1/24 dev br-bench"])
for key, value in {
    "net.ipv4.ip_forward": 1,
    "net.ipv4.conf.all.rp_filter": 2,
    "net.ipv4.tcp_rmem": [4096, 87380, 16777216],
}.items():
    server.sysctl(
        name=f"sysctl {key}",
        key=key,
        value=value,
        persist=True,
        persist_file="/etc/sysctl.d/90-bench.conf",
    )
table = files.put(
    name="nft table", src=str(HERE / "bench.nft"), dest="/etc/nftables.d/bench.nft", mode="644"
)
server.shell(
    name="load the table", commands=["nft -f /etc/nftables.d/bench.nft"], _if=table.did_change
)
