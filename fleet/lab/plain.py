"""A lab's topology as plain data, for what brings machines up itself."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from fleet.lab.topology import LabError, read_topology
from fleet.lab.vm.identity import plain_files

#: What Vagrant calls the NIC that it puts into every machine.
_TAKEN = "eth0"


def plain_topology(project: Path) -> dict[str, Any]:
    """Return {"hosts": name → its fields and "files", "networks": name → {"gateways"}}.

    ``files`` are path → text of what makes a machine the host. Raises UsageError.
    """
    topology = read_topology(project)
    hosts = {}
    for name, host in topology.hosts.items():
        about = asdict(host)
        files = plain_files(about)
        if host.port != 22:
            files["etc/ssh/sshd_config.d/lab.conf"] = f"Port 22\nPort {host.port}\n"
        hosts[name] = {**about, "files": files}
    networks = {
        name: {"gateways": sorted(network.gateways)} for name, network in topology.networks.items()
    }
    return {"hosts": hosts, "networks": networks}


def refuse_taken_names(topology: dict[str, Any], names: list[str]) -> None:
    """Raise LabError where a host has a NIC of the name that Vagrant's own has."""
    for name in names:
        if any(nic["name"] == _TAKEN for nic in topology["hosts"][name]["nics"]):
            raise LabError(
                f"{name}: {_TAKEN} is Vagrant's own NIC in each machine; fleet.lab.nics and "
                "network.ethernets have to name others"
            )
