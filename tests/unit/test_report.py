"""What fleet prints: plans, audits, runs and status, from constructed objects."""

from __future__ import annotations

import json

import pytest

from fleet.host.change import Change, Plan, Problem
from fleet.report.audit import audit_json, audit_text
from fleet.report.plan import change_json, plan_json, plan_text
from fleet.report.run import MEANING, Row, exit_code, run_json, run_text
from fleet.report.text import Paint, clean, duration, listed, table, value
from fleet.report.transactions import status_text


def bridge_plan(**more: object) -> Plan:
    changes = (
        Change(kind="bridge", name="br-guests", action="create"),
        Change(kind="bridge", name="br-guests", what="interfaces", after="eth1"),
        Change(
            kind="ethernet",
            name="eth1",
            what="mtu",
            before=1500,
            after=9000,
            impact="blip",
            guests=("web-1", "web-2"),
            reason="the link goes down to change it",
        ),
        Change(kind="ethernet", name="eth1", what="addresses", before="198.18.1.5/24"),
        Change(kind="veth", name="old0", action="delete", before={"peer": "old1"}),
    )
    return Plan(changes=changes, digest="d", **more)  # type: ignore[arg-type]


def test_plan_reads_as_a_diff_grouped_by_resource() -> None:
    """A plan shows each resource once with its mark, its attributes below, impact with guests."""
    assert plan_text({"hv-1": bridge_plan()}) == [
        "hv-1: 5 changes, impact blip on 2 guests",
        "  + bridge br-guests",
        "      + interfaces eth1",
        "  ~ ethernet eth1",
        "      ~ mtu 1500 → 9000",
        "        impact blip: guests web-1, web-2 (the link goes down to change it)",
        "      - addresses 198.18.1.5/24",
        "  - veth old0",
        "",
        "1 host: 1 to change (5 changes).",
    ]


def test_equal_plans_are_folded() -> None:
    """Hosts with equal plans share one block; a host without changes has none, and is counted."""
    plans = {"hv-1": bridge_plan(), "hv-2": bridge_plan(), "hv-3": Plan(), "hv-4": bridge_plan()}
    lines = plan_text(plans)
    assert lines[0].startswith("hv-1, hv-2, hv-4: 5 changes")
    assert lines[-1] == "4 hosts: 3 to change (15 changes), 1 unchanged."
    assert sum("br-guests" in line for line in lines) == 1


def test_many_names_are_counted_unless_asked_for() -> None:
    """More than six hosts are counted; verbose names them all."""
    plans = {f"hv-{n}": bridge_plan() for n in range(9)}
    assert plan_text(plans)[0].startswith("hv-0, hv-1, hv-2, hv-3, hv-4, hv-5 and 3 more: ")
    assert "hv-8" in plan_text(plans, verbose=True)[0]


def test_problem_says_expected_found_and_what_to_do() -> None:
    """A problem of a plan shows what was expected, what is, and the remedy."""
    problem = Problem("ethernet/eth9", "", "a NIC named eth9", "no such NIC", "correct its match")
    lines = plan_text({"hv-1": Plan(problems=(problem,))})
    assert lines[:5] == [
        "hv-1: 1 problem",
        "  ! ethernet eth9",
        "      expected a NIC named eth9",
        "      found    no such NIC",
        "      do       correct its match",
    ]


def test_unreachable_hosts_are_shown_apart() -> None:
    """A host without a plan says why, and is counted."""
    lines = plan_text({"hv-1": Plan()}, {"hv-2": ["no answer from 198.18.0.2:22"]})
    assert "hv-2: no plan" in lines
    assert lines[-1] == "2 hosts: 1 unchanged, 1 without a plan."


def test_what_came_from_a_host_is_cleaned() -> None:
    """Escapes, line ends and bidirectional overrides of a host never reach the terminal."""
    evil = "x\x1b]0;owned\x07\r\n\u202ey\x9b31m"
    plan = Plan(
        changes=(
            Change(
                kind="bridge",
                name=evil,
                what=evil,
                before=evil,
                after=evil,
                impact="blip",
                guests=(evil,),
                reason=evil,
            ),
        ),
        problems=(Problem(evil, evil, evil, evil, evil),),
        unmanaged=(f"veth/{evil}",),
    )
    shown = plan_text({evil: plan}, {evil: [evil]}) + audit_text({evil: plan}, {evil: [evil]})
    shown += status_text({evil: [{"transaction": evil, "state": evil, "owner": evil}]})
    shown += run_text([Row(evil, "failed", message=evil, problems=plan.problems)], verbose=True)
    for line in shown:
        assert not set(line) & set("\x1b\x07\r\n\u202e\x9b"), line


def test_audit_without_drift_is_a_line_per_group() -> None:
    """No drift means nothing but one clean line for each group."""
    plans = {"hv-1": Plan(), "hv-2": Plan(), "hv-3": Plan()}
    assert audit_text(plans, {"rack1": ["hv-1", "hv-2"], "rack2": ["hv-3"]}) == [
        "rack1: 2 hosts, no drift",
        "rack2: 1 host, no drift",
    ]


def test_audit_shows_expected_and_found_and_unmanaged_apart() -> None:
    """Drift shows host, resource, expected and found; unmanaged resources come after, apart."""
    plans = {"hv-1": bridge_plan(unmanaged=("bridge/docker9",)), "hv-2": Plan()}
    assert audit_text(plans, {"rack1": ["hv-1", "hv-2"]}) == [
        "rack1: 2 hosts, drift on 1",
        "  hv-1:",
        "    bridge br-guests: expected, not there (now)",
        "    ethernet eth1 (now)",
        "      mtu        expected 9000, found 1500",
        "      addresses  expected none, found 198.18.1.5/24",
        "    veth old0: there, not expected (now)",
        "",
        "unmanaged (no intent names them; fleet leaves them alone):",
        "  hv-1: bridge docker9",
    ]


def test_audit_counts_hosts_that_were_not_audited() -> None:
    """A host that could not be audited is never counted as clean."""
    lines = audit_text({"hv-1": Plan()}, {"r": ["hv-1", "hv-2"]}, {"hv-2": ["no answer"]})
    assert lines == ["r: 2 hosts, 1 not audited", "  hv-2: not audited", "    no answer"]


def test_outcomes_are_told_apart() -> None:
    """A summary has a line for each outcome that occurred, and the reasons after."""
    rows = [
        Row("a", "committed", 1, 3),
        Row("b", "unreachable", message="no route"),
        Row("c", "refused", message="stale plan"),
        Row("d", "reverted", message="probe failed"),
        Row("e", "failed", message="no sudo"),
    ]
    lines = run_text(rows)
    firsts = [line.split()[0] for line in lines[:5]]
    assert firsts == ["committed", "unreachable", "refused", "failed", "reverted"]
    assert "d: reverted: probe failed" in lines


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        (["committed", "unchanged"], 0),
        ([], 0),
        (["committed", "failed"], 1),
        (["committed", "unreachable"], 1),
        (["refused"], 1),
        (["committed", "reverted"], 4),
        (["reverted", "failed"], 4),
        (["reverted", "revert failed"], 5),
        (["unknown", "failed"], 5),
        (["revert_failed"], 5),
        (["something new"], 5),
    ],
)
def test_exit_code_is_the_gravest(outcomes: list[str], code: int) -> None:
    """A person needed is 5, before reverted 4, before failed 1; an unknown word is never 0."""
    assert exit_code(outcomes) == code


def test_status_says_what_happens_and_what_to_type() -> None:
    """Status names the host, the seconds left, what follows, and the commands; soonest first."""
    lines = status_text(
        {
            "hv-1": [
                {"transaction": "t1", "state": "APPLIED", "seconds_left": 71.4, "owner": "ann@ops"}
            ],
            "hv-2": [{"transaction": "t2", "state": "APPLYING(3)", "seconds_left": 12}],
            "hv-3": [{"transaction": "t3", "state": "COMMITTED"}],
        }
    )
    assert lines[0] == "hv-2: APPLYING, 12 s left"
    assert "hv-1: APPLIED, 1 min 11 s left" in lines
    assert "  if you do nothing the host puts itself back as before" in lines
    assert "  to keep it        fleet confirm t1" in lines
    assert "  to undo it now    fleet revert t2" in lines
    assert not any("fleet confirm t2" in line for line in lines)
    assert lines[-1] == "1 host with nothing pending."


def test_status_with_nothing_pending_is_one_line() -> None:
    """Nothing armed is one calm line."""
    assert status_text({"a": [], "b": []}) == ["2 hosts: nothing is armed, no change is pending."]


def test_status_of_a_failed_revert_calls_for_a_person() -> None:
    """A failed revert is never shown as something that ends by itself."""
    lines = status_text({"a": [{"transaction": "t", "state": "REVERT_FAILED"}]})
    assert lines[0] == "a: REVERT FAILED"
    assert "nothing more happens by itself" in lines[2]


def test_json_is_plain_data_with_stable_keys() -> None:
    """The JSON forms are serialisable and have exactly the documented keys."""
    plan = plan_json(bridge_plan())
    assert list(plan) == ["digest", "impact", "guests", "changes", "problems", "unmanaged"]
    assert list(plan["changes"][0]) == [
        "resource",
        "action",
        "attribute",
        "before",
        "after",
        "impact",
        "guests",
        "reason",
    ]
    assert list(audit_json(bridge_plan())["drift"][0]) == [
        "resource",
        "attribute",
        "expected",
        "actual",
        "action",
        "when",
    ]
    assert list(run_json(Row("a", "committed"))) == [
        "outcome",
        "wave",
        "changes",
        "seconds",
        "message",
        "problems",
        "transaction",
    ]
    json.dumps([plan, audit_json(bridge_plan()), run_json(Row("a", "committed"))])


def test_every_outcome_has_a_meaning_and_an_exit() -> None:
    """No outcome that is not good exits with 0."""
    assert {outcome for outcome in MEANING if exit_code([outcome]) == 0} == {
        "committed",
        "unchanged",
    }


def test_colour_only_when_on() -> None:
    """Paint that is off leaves the text as it is."""
    assert Paint(False).added("x") == "x"
    assert Paint(True).added("x") == "\x1b[32mx\x1b[0m"
    assert any("\x1b[" in line for line in plan_text({"a": bridge_plan()}, paint=Paint(True)))


def test_values_read_as_yaml() -> None:
    """Values are shown as an operator writes them."""
    assert [
        value(v)
        for v in (
            None,
            True,
            15.0,
            1.5,
            ["a", 2],
            {"via": "198.18.0.1", "to": "default", "dev": None},
        )
    ] == [
        "none",
        "true",
        "15",
        "1.5",
        "[a, 2]",
        "default via 198.18.0.1",
    ]


def test_small_words() -> None:
    """Durations, lists and tables are short and aligned."""
    assert [duration(s) for s in (0.2, 59.6, 60, 125, 11400)] == [
        "0 s",
        "1 min",
        "1 min",
        "2 min 5 s",
        "3 h 10 min",
    ]
    assert listed(["a", "b", "c"], 2) == "a, b and 1 more"
    assert table([["a", "b"], ["ccc", "d"]], ["x", "y"]) == ["x    y", "a    b", "ccc  d"]
    assert len(clean("x" * 10_000)) == 200


def test_of_a_changed_file_the_lines_that_differ_are_shown() -> None:
    """Lines that stay are not in the plan's text; the others come and go one by one."""
    change = Change(
        kind="file",
        name="/etc/sysctl.d/90-fleet.conf",
        what="text",
        before=["a = 1", "b = 1"],
        after=["a = 1", "b = 2"],
    )
    lines = plan_text({"hv-1": Plan((change,))})
    assert "      - text b = 1" in lines
    assert "      + text b = 2" in lines
    assert not any("a = 1" in line for line in lines)


def test_of_rules_the_lines_that_differ_are_shown() -> None:
    """A plan marks each rule that comes or goes, an audit says which was expected; 20 at most."""
    lines = ("- chain a: counter", "+ chain a: tcp dport 22 accept", *["+ chain b: drop"] * 30)
    rules = Change(kind="nftables", name="inet/a", what="rules", before="x", after="y", lines=lines)
    said = plan_text({"hv-1": Plan((rules,))})
    assert said[2:4] == ["      ~ rules", "          - chain a: counter"]
    assert "      … 12 more lines; --verbose shows it" in "\n".join(said)
    assert len(plan_text({"hv-1": Plan((rules,))}, verbose=True)) == len(lines) + 5
    audit = "\n".join(audit_text({"hv-1": Plan((rules,))}, {"g": ["hv-1"]}))
    assert "rules  found    chain a: counter" in audit
    assert "expected chain a: tcp dport 22 accept" in audit
    assert change_json(rules)["lines"] == list(lines)


def test_a_new_text_is_shown_as_it_is() -> None:
    """The rules of a new table are lines of their own; what is too long for a plan is counted."""
    text = "chain a {\n\tdrop\n}\n" + "chain b { }\n" * 30
    new = Change(kind="nftables", name="inet/a", action="create", after=text)
    said = plan_text({"hv-1": Plan((new,))})
    assert said[1:5] == [
        "  + nftables inet/a",
        *(f"        {x}" for x in ("chain a {", "  drop", "}")),
    ]
    assert "        … 13 more lines; --verbose shows them" in said


def test_a_new_sysctl_is_one_line() -> None:
    """A key of a namespace that is not there yet has no value before."""
    new = Change(namespace="dmz", kind="sysctl", name="net.a", what="value", after="1")
    assert "  + sysctl net.a in dmz 1" in plan_text({"hv-1": Plan((new,))})
