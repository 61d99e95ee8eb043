"""XML as small trees: read, written and compared by meaning, on a host at next to no cost.

A tree is ``{"tag", "attributes", "text", "children"}``. expat is a module of C, where ``xml.etree``
imports ``re`` and more.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Tree = dict[str, Any]

#: Elements whose order says nothing: libvirt finds each by its own name, MAC or address.
UNORDERED = (
    "host", "hostname", "portgroup", "range", "route", "txt", "srv", "bootp", "option",
)  # fmt: skip


def parse(text: str) -> Tree:
    """Return the root element of a document; raises ValueError where it is none.

    Declarations of entities are refused: no definition needs any.
    """
    import pyexpat

    holder: Tree = {"tag": "", "attributes": {}, "text": "", "children": []}
    open_: list[Tree] = [holder]

    def start(tag: str, attributes: dict[str, str]) -> None:
        node = {"tag": tag, "attributes": attributes, "text": "", "children": []}
        open_[-1]["children"].append(node)
        open_.append(node)

    def end(_: str) -> None:
        node = open_.pop()
        node["text"] = node["text"].strip()

    def data(words: str) -> None:
        open_[-1]["text"] += words

    def declared(*_: Any) -> None:
        raise ValueError("a document type or an entity is declared")

    parser = pyexpat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = data
    parser.StartDoctypeDeclHandler = declared
    try:
        parser.Parse(text, True)
    except pyexpat.ExpatError as error:
        raise ValueError(f"it is no XML: {error}") from error
    root: Tree = holder["children"][0]
    return root


def element(tag: str, **attributes: str) -> Tree:
    """Return an element with nothing inside."""
    return {"tag": tag, "attributes": attributes, "text": "", "children": []}


def expect(text: str, tag: str) -> None:
    """Refuse a text that is no document of such a root; raises ValueError."""
    try:
        found = parse(text)["tag"]
    except ValueError as error:
        raise ValueError(f"{text[:60]!r}: {error}") from error
    if found != tag:
        raise ValueError(f"libvirt's XML of a {tag} is expected, and this is <{found}>")


def write(tree: Tree) -> str:
    """Return a tree as a document."""
    inner = _escaped(tree["text"]) + "".join(write(child) for child in tree["children"])
    words = "".join(f" {name}='{_escaped(value)}'" for name, value in tree["attributes"].items())
    return f"<{tree['tag']}{words}>{inner}</{tree['tag']}>"


def _escaped(text: str) -> str:
    for character, name in (("&", "amp"), ("<", "lt"), (">", "gt"), ("'", "apos"), ("\n", "#10")):
        text = text.replace(character, f"&{name};")
    return text


def child(tree: Tree, tag: str) -> Tree | None:
    """Return the first child of a name."""
    for each in tree["children"]:
        if each["tag"] == tag:
            found: Tree = each
            return found
    return None


def attribute(tree: Tree, path: str, name: str) -> str:
    """Return an attribute of the first element along a path, empty where there is none."""
    at: Tree | None = tree
    for tag in path.split("/"):
        at = child(at, tag) if at is not None else None
    return str(at["attributes"].get(name, "")) if at is not None else ""


def differences(now: Tree, wanted: Tree, path: str = "") -> list[tuple[str, Any, Any]]:
    """Return where two trees differ, as (path, now, wanted): ``ip[0]/dhcp/range[0]@end``."""
    found: list[tuple[str, Any, Any]] = []
    for name in sorted({*now["attributes"], *wanted["attributes"]}):
        have, want = now["attributes"].get(name), wanted["attributes"].get(name)
        if have != want:
            found.append((f"{path}@{name}", have, want))
    if now["text"] != wanted["text"]:
        found.append((path, now["text"], wanted["text"]))
    for tag in dict.fromkeys(each["tag"] for each in (*now["children"], *wanted["children"])):
        have_all, want_all = _of(now, tag), _of(wanted, tag)
        if tag in UNORDERED:
            have_all, want_all = _without(have_all, want_all), _without(want_all, have_all)
        several = max(len(_of(now, tag)), len(_of(wanted, tag))) > 1 or tag in ("ip", "range")
        for index in range(max(len(have_all), len(want_all))):
            inner = f"{path}/{tag}" if path else tag
            inner += f"[{index}]" if several else ""
            have = have_all[index] if index < len(have_all) else None
            want = want_all[index] if index < len(want_all) else None
            if have is None or want is None:
                found.append((inner, have and write(have), want and write(want)))
            else:
                found += differences(have, want, inner)
    return found


def lines(found: dict[str, tuple[Any, Any]]) -> tuple[str, ...]:
    """Return for people where documents differ: a line for what is there and one for what is to be,
    each with its path."""
    said = []
    for path, (have, want) in found.items():
        said += [f"- {path}: {have}"] if have is not None else []
        said += [f"+ {path}: {want}"] if want is not None else []
    return tuple(said)


def equal(one: Tree, other: Tree) -> bool:
    """Say whether two trees mean the same."""
    return not differences(one, other)


def _of(tree: Tree, tag: str) -> list[Tree]:
    return [each for each in tree["children"] if each["tag"] == tag]


def missing(these: list[Tree], those: list[Tree]) -> list[Tree]:
    """Return which of these are not among those."""
    return _without(these, those)


def _without(these: list[Tree], those: list[Tree]) -> list[Tree]:
    left, found = list(those), []
    for each in these:
        same = next((other for other in left if equal(each, other)), None)
        if same is None:
            found.append(each)
        else:
            left.remove(same)
    return found


def spans(text: str) -> list[tuple[tuple[str, ...], int, int]]:
    """Return where each element inside the root is, as (path, start, end) in bytes of UTF-8."""
    import pyexpat

    data = text.encode()
    parser = pyexpat.ParserCreate("utf-8")
    open_: list[tuple[str, int]] = []
    found: list[tuple[tuple[str, ...], int, int]] = []
    empty = False

    def start(tag: str, _: dict[str, str]) -> None:
        nonlocal empty
        empty = True
        open_.append((tag, parser.CurrentByteIndex))

    def inner(_: str) -> None:
        nonlocal empty
        empty = False

    def end(tag: str) -> None:
        nonlocal empty
        at = parser.CurrentByteIndex
        path = tuple(name for name, _ in open_[1:])
        # Of <a/> expat says the end of it, and of </a> the beginning.
        whole = empty and data[at - 2 : at] == b"/>"
        found.append((path, open_.pop()[1], at if whole else data.index(b">", at) + 1))
        empty = False

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = parser.CommentHandler = inner
    parser.Parse(data, True)
    return found
