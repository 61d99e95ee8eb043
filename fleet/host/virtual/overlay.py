"""One interface of a guest as it shall be: what intent names, laid over what libvirt has.

What intent names is a part of libvirt's own ``<interface>``. An element that stands there alone,
with nothing in it, is one that shall not be.
"""

from __future__ import annotations

from fleet.host.virtual import tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Tree = dict[str, Any]

#: What says who and where an interface is; intent finds one by it and changes none of it.
IDENTITY = ("mac", "alias", "address", "target")
#: Elements that mean one thing as a whole: what intent does not name of one is not wanted.
_WHOLE = ("filterref", "vlan", "bandwidth", "source")
#: What means the same as no such element.
_USUAL = {"link": ("state", "up"), "port": ("isolated", "no")}
#: What QEMU's driver changes while a guest runs (qemuDomainChangeNet, src/qemu/qemu_hotplug.c).
IN_PLACE = ("source", "link", "filterref", "bandwidth", "port", "coalesce", "vlan")
#: And where a VLAN tag can be changed so: the others have none at all.
_TAGGED = "openvswitch"


def overlaid(now: Tree, wanted: Tree, only: Iterable[str] | None = None) -> Tree:
    """Return an interface with what is wanted of it, or of some of its elements; pure."""
    children = list(now["children"])
    done: Tree = {**now, "attributes": dict(now["attributes"]), "children": children}
    for each in wanted["children"]:
        tag = each["tag"]
        if tag in IDENTITY or (only is not None and tag not in only):
            continue
        have = tree.child(done, tag)
        fresh = _laid(have, each)
        if fresh is have:
            continue
        if tag == "source":
            done["attributes"]["type"] = type_of(each)
        at = children.index(have) if have is not None else len(children)
        children[at : at + 1] = [fresh] if fresh is not None else []
    return done


def _laid(have: Tree | None, each: Tree) -> Tree | None:
    """Return an element as it shall be: the same object where that is what it is."""
    tag = each["tag"]
    if not (each["attributes"] or each["children"] or each["text"]):
        return None
    if tag in _USUAL and have is None:
        name, usual = _USUAL[tag]
        return None if each["attributes"].get(name) == usual else each
    if have is None:
        return each
    if tag == "source":
        # libvirt adds what a network became (portid, bridge) to what runs.
        named = each["attributes"].items()
        same = all(have["attributes"].get(k) == v for k, v in named)
        return have if same and type_of(have) == type_of(each) else each
    if tag in _WHOLE:
        return have if tree.equal(_spelled(have), _spelled(each)) else each
    merged = _merged(have, each)
    return have if tree.equal(have, merged) else merged


def _spelled(node: Tree) -> Tree:
    """Return an element as libvirt means it: several tags are a trunk, parameters a set."""
    attributes = dict(node["attributes"])
    if node["tag"] == "filterref":
        told = sorted(node["children"], key=lambda e: sorted(e["attributes"].items()))
        return {**node, "children": told}
    if node["tag"] == "vlan" and len(node["children"]) > 1:
        attributes["trunk"] = "yes"
    return {**node, "attributes": attributes}


def _merged(have: Tree, each: Tree) -> Tree:
    children = list(have["children"])
    for inner in each["children"]:
        known = next((c for c in children if _is(c, inner)), None)
        if known is None:
            children.append(inner)
        else:
            children[children.index(known)] = _merged(known, inner)
    attributes = {**have["attributes"], **each["attributes"]}
    text = each["text"] or have["text"]
    return {"tag": have["tag"], "attributes": attributes, "text": text, "children": children}


def _is(one: Tree, other: Tree) -> bool:
    name = "name" if one["tag"] == "parameter" else ""
    same = one["attributes"].get(name) == other["attributes"].get(name)
    return bool(one["tag"] == other["tag"] and same)


def type_of(source: Tree) -> str:
    """Return the type of an interface with such a source."""
    attributes = source["attributes"]
    return next((a for a in ("network", "bridge") if a in attributes), "direct")


def bridge_of(interface: Tree) -> str:
    """Return the bridge that a running interface is in, empty where it is in none."""
    if interface["attributes"].get("type") not in ("bridge", "network"):
        return ""
    return tree.attribute(interface, "source", "bridge")


def given(interface: Tree) -> Tree:
    """Return an interface that runs as libvirt takes it: in a network, not in what that became."""
    source = tree.child(interface, "source")
    if source is None or type_of(source) != "network":
        return interface
    kept = {k: v for k, v in source["attributes"].items() if k in ("network", "portgroup")}
    rest = [{**e, "attributes": kept} if e is source else e for e in interface["children"]]
    attributes = {**interface["attributes"], "type": "network"}
    return {**interface, "attributes": attributes, "children": rest}


def in_place(path: str, now: Tree, wanted: Tree, bridged: bool) -> bool:
    """Say whether libvirt can change a running guest's interface there.

    ``bridged`` says whether the source that is wanted is a bridge, or a network that has one.
    """
    tag = path.partition("/")[0].partition("@")[0].partition("[")[0] or "source"  # of @type
    if tag == "source":
        return bool(bridge_of(now)) and bridged
    if tag == "vlan":
        return tree.attribute(wanted, "virtualport", "type") == _TAGGED
    return tag in IN_PLACE
