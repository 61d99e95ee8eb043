"""Nornir's inventory from fleet's source: the plugin ``fleet``.

A host's ``data`` is the merged result of defaults, groups and host, made when first asked for. The
plugin's options are SimpleInventory's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nornir.core.inventory import (
    ConnectionOptions,
    Defaults,
    Group,
    Groups,
    Host,
    Hosts,
    Inventory,
    ParentGroups,
)

from fleet.intent.source import CONNECTION, Source, parameter
from fleet.intent.tree import Mapping, plain


class FleetInventory:
    """Loads hosts.yaml, groups.yaml and defaults.yaml; raises InventoryError with file and line."""

    def __init__(
        self,
        host_file: str = "inventory/hosts.yaml",
        group_file: str = "inventory/groups.yaml",
        defaults_file: str = "inventory/defaults.yaml",
    ) -> None:
        self.files = [Path(file).expanduser() for file in (host_file, group_file, defaults_file)]

    def load(self) -> Inventory:
        """Read the files and return the inventory."""
        return nornir_inventory(Source(*self.files))


class FleetHost(Host):
    """A host whose ``data`` is merged, once, when it is first asked for."""

    __slots__ = ("_data", "_source")

    def __init__(self, source: Source, name: str, defaults: Defaults) -> None:
        element = source.hosts[name]
        self._source = source
        super().__init__(
            name, **_parameters(element), defaults=defaults, connection_options=_options(element)
        )
        self._data: dict[str, Any] | None = None

    @property
    def data(self) -> dict[str, Any]:
        """The merged data; values are as written, not rendered."""
        if self._data is None:
            merged = plain(self._source.data(self.name))
            assert isinstance(merged, dict)
            self._data = merged
        return self._data

    @data.setter
    def data(self, value: dict[str, Any]) -> None:
        self._data = value

    def extended_groups(self) -> list[Group]:
        """Return all groups, in the order of the merge."""
        if not self.groups:
            return []
        known = {group.name: group for group in self.groups}
        found: list[Group] = []
        for name in self._source.groups_of(self.name):
            found.append(known[name])
            known.update((group.name, group) for group in known[name].groups)
        return found

    def extended_data(self) -> dict[str, Any]:
        """Return the merged data: nothing is inherited besides."""
        return self.data

    def __getitem__(self, item: str) -> Any:
        return self.data[item]


def nornir_inventory(source: Source) -> Inventory:
    """Return Nornir's inventory of a source."""
    defaults = Defaults(
        **_parameters(source.defaults),
        data=_plain_data(source.defaults),
        connection_options=_options(source.defaults),
    )
    groups = Groups()
    for name, element in source.groups.items():
        groups[name] = Group(
            name,
            **_parameters(element),
            data=_plain_data(element),
            connection_options=_options(element),
            defaults=defaults,
        )
    for name, element in source.groups.items():
        groups[name].groups = ParentGroups(groups[parent] for parent, _ in source.listed(element))
    hosts = Hosts()
    for name, element in source.hosts.items():
        host = FleetHost(source, name, defaults)
        host.groups = ParentGroups(groups[parent] for parent, _ in source.listed(element))
        hosts[name] = host
    return Inventory(hosts=hosts, groups=groups, defaults=defaults)


def _parameters(element: Mapping) -> dict[str, Any]:
    return {key: parameter(element, key) for key in CONNECTION if key in element.entries}


def _plain_data(element: Mapping) -> dict[str, Any]:
    node = element.get("data")
    data = plain(node) if isinstance(node, Mapping) else {}
    assert isinstance(data, dict)
    return data


def _options(element: Mapping) -> dict[str, ConnectionOptions]:
    listed = element.get("connection_options")
    if not isinstance(listed, Mapping):
        return {}
    options: dict[str, ConnectionOptions] = {}
    for name, inner in listed.entries.items():
        assert isinstance(inner, Mapping)
        node = inner.get("extras")
        extras: Any = plain(node) if isinstance(node, Mapping) else None
        options[name] = ConnectionOptions(**_parameters(inner), extras=extras)
    return options
