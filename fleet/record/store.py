"""Reads and writes the record's tables, within one transaction of the caller's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, create_engine, event, func, select
from sqlalchemy.orm import Session

from fleet.errors import UsageError
from fleet.host.spec import encode
from fleet.record.models import ConfirmRow, HostRow, Model, PhaseRow, RunRow, StateRow
from fleet.record.place import sqlite_file
from fleet.record.reader import PastHost, PastRun
from fleet.record.redact import redacted

if TYPE_CHECKING:
    from fleet.record.writer import HostEnd, HostEntry, RunEntry


def connect(url: str) -> Engine:
    """Return an engine for a record, its tables made; a SQLite file is private to its owner."""
    import os

    file = sqlite_file(url)
    if file is not None and not file.exists():
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    engine = create_engine(url, pool_pre_ping=file is None)
    if file is not None:
        event.listen(engine, "connect", _prepare_sqlite)
    Model.metadata.create_all(engine)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    # With synchronous=FULL a commit in WAL mode is fsynced (sqlite.org/pragma.html).
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


@dataclass
class Store:
    """The record within one transaction; whoever made it commits."""

    session: Session

    def begin_run(self, run: RunEntry, hosts: Sequence[HostEntry]) -> None:
        """Record that a run begins: who, what, and every host's plan and state."""
        self.session.add(
            RunRow(
                id=run.id,
                kind=run.kind,
                of=run.of,
                started=run.started,
                ended=None,
                controller=run.controller,
                pid=run.pid,
                attempt=1,
                project=run.project,
                revision=run.revision,
                options=run.options,
                stopped="",
            )
        )
        self.session.flush()
        for position, entry in enumerate(hosts):
            self.session.add(_host_row(run.id, position, entry))
        self._keep_states(hosts)

    def _keep_states(self, hosts: Sequence[HostEntry]) -> None:
        for entry in hosts:
            if entry.state is None or self.session.get(StateRow, entry.state_digest) is not None:
                continue
            state, withheld = redacted(dict(entry.state))
            self.session.add(StateRow(digest=entry.state_digest, state=state, withheld=withheld))
            self.session.flush()

    def resume_run(self, run: str, controller: str, pid: int, options: dict[str, Any]) -> int:
        """Record that a run is begun again by another process, with the options that hold from
        now on; return which attempt it is."""
        row = self._run(run)
        row.options = options
        row.attempt, row.controller, row.pid = row.attempt + 1, controller, pid
        row.ended, row.stopped = None, ""
        return row.attempt

    def waves(self, run: str, waves: Sequence[Sequence[str]]) -> None:
        """Record which hosts change together."""
        number_of = {host: number for number, wave in enumerate(waves, 1) for host in wave}
        for row in self.session.scalars(select(HostRow).where(HostRow.run == run)):
            row.wave = number_of.get(row.host, row.wave)

    def arming(
        self,
        run: str,
        host: str,
        transaction: str,
        plan: Any,
        nonce_hash: str,
        addresses: Sequence[str],
    ) -> None:
        """Record what a host is about to be armed with."""
        row = self._host(run, host)
        row.transaction, row.nonce_hash, row.addresses = transaction, nonce_hash, list(addresses)
        row.plan, row.plan_digest = redacted(encode(plan))[0], plan.digest
        row.changes, row.arming_at = len(plan.changes), time.time()

    def confirmed(
        self, run: str, host: str, transaction: str, address: str, state: str, at: float
    ) -> None:
        """Record a confirmation and the host's answer."""
        self.session.add(
            ConfirmRow(
                run=run, host=host, transaction=transaction, address=address, state=state, at=at
            )
        )

    def host_ended(self, run: str, end: HostEnd) -> None:
        """Record how a host ended, and how long its phases took."""
        row = self._host(run, end.host)
        row.outcome, row.message = end.outcome, end.message
        row.problems, row.changes = encode(end.problems), end.changes
        row.seconds, row.ended = end.seconds, time.time()
        row.wave = end.wave or row.wave
        for name, began, took in end.phases:
            self.session.add(
                PhaseRow(
                    run=run, host=end.host, name=name, began=round(began, 4), took=round(took, 4)
                )
            )

    def end_run(self, run: str, stopped: str) -> None:
        """Record that a run has ended."""
        row = self._run(run)
        row.ended, row.stopped = time.time(), stopped

    def last_runs(self, last: int) -> list[PastRun]:
        """Return the last runs, newest first, with their hosts counted by outcome."""
        newest = select(RunRow).order_by(RunRow.started.desc()).limit(last)
        rows = list(self.session.scalars(newest))
        counted = self.session.execute(
            select(HostRow.run, HostRow.outcome, func.count())
            .where(HostRow.run.in_([row.id for row in rows]))
            .group_by(HostRow.run, HostRow.outcome)
        )
        outcomes: dict[str, dict[str, int]] = {}
        for run, outcome, number in counted:
            outcomes.setdefault(run, {})[outcome or "in flight"] = number
        return [_past(row, outcomes.get(row.id, {})) for row in rows]

    def load_run(self, name: str) -> PastRun:
        """Return one run in full, by its id or an unambiguous beginning; raises UsageError."""
        escaped = name.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        query = select(RunRow).where(RunRow.id.like(f"{escaped}%", escape="\\")).limit(2)
        found = list(self.session.scalars(query))
        found = [row for row in found if row.id == name] or found
        if len(found) != 1:
            many = "several runs begin with" if found else "the record has no run"
            raise UsageError(f"{many} {name!r}; fleet history lists them")
        row = found[0]
        hosts = list(
            self.session.scalars(
                select(HostRow).where(HostRow.run == row.id).order_by(HostRow.position)
            )
        )
        phases: dict[str, list[tuple[str, float, float]]] = {}
        for phase in self.session.scalars(
            select(PhaseRow).where(PhaseRow.run == row.id).order_by(PhaseRow.id)
        ):
            phases.setdefault(phase.host, []).append((phase.name, phase.began, phase.took))
        confirms: dict[str, list[tuple[str, str, float]]] = {}
        for each in self.session.scalars(
            select(ConfirmRow).where(ConfirmRow.run == row.id).order_by(ConfirmRow.id)
        ):
            confirms.setdefault(each.host, []).append((each.address, each.state, each.at))
        past = _past(row, {})
        for host in hosts:
            past.outcomes[host.outcome or "in flight"] = (
                past.outcomes.get(host.outcome or "in flight", 0) + 1
            )
            past.hosts[host.host] = _past_host(
                host, tuple(phases.get(host.host, ())), tuple(confirms.get(host.host, ()))
            )
        return past

    def run_of(self, transaction: str) -> str:
        """Return the run that armed a transaction, empty where the record knows none."""
        query = select(HostRow.run).where(HostRow.transaction == transaction).limit(1)
        return self.session.scalars(query).first() or ""

    def state(self, digest: str) -> tuple[dict[str, Any], list[str]] | None:
        """Return a state and what was withheld of it, None where the record does not have it."""
        row = self.session.get(StateRow, digest)
        return (dict(row.state), [str(path) for path in row.withheld]) if row else None

    def committed_before(self, host: str, started: float) -> str:
        """Return the digest of the state a host last committed before a time, empty if none."""
        query = (
            select(HostRow.state_digest)
            .join(RunRow, RunRow.id == HostRow.run)
            .where(HostRow.host == host, RunRow.started < started)
            .where(HostRow.outcome.in_(["committed", "unchanged"]), HostRow.state_digest != "")
            .order_by(RunRow.started.desc())
            .limit(1)
        )
        return self.session.scalars(query).first() or ""

    def _run(self, run: str) -> RunRow:
        row = self.session.get(RunRow, run)
        if row is None:
            raise UsageError(f"the record has no run {run!r}")
        return row

    def _host(self, run: str, host: str) -> HostRow:
        row = self.session.get(HostRow, (run, host))
        if row is None:
            raise UsageError(f"the record has no host {host!r} in run {run!r}")
        return row


def _host_row(run: str, position: int, entry: HostEntry) -> HostRow:
    plan = entry.plan
    return HostRow(
        run=run,
        host=entry.host,
        position=position,
        wave=None,
        outcome="",
        message="",
        problems=[],
        changes=len(plan.changes) if plan else 0,
        seconds=None,
        plan=redacted(encode(plan))[0] if plan else None,
        plan_digest=plan.digest if plan else "",
        state_digest=entry.state_digest,
        transaction="",
        nonce_hash="",
        addresses=[],
        arming_at=None,
        ended=None,
    )


def _past(row: RunRow, outcomes: dict[str, int]) -> PastRun:
    return PastRun(
        row.id,
        row.kind,
        row.started,
        row.ended,
        row.controller,
        row.pid,
        row.revision,
        dict(row.options),
        row.stopped,
        dict(outcomes),
        {},
        row.of,
        row.attempt,
    )


def _past_host(
    row: HostRow,
    phases: tuple[tuple[str, float, float], ...],
    confirms: tuple[tuple[str, str, float], ...],
) -> PastHost:
    return PastHost(
        row.host,
        row.outcome,
        row.message,
        tuple(row.problems),
        row.wave,
        row.changes,
        row.seconds,
        row.transaction,
        row.plan,
        row.plan_digest,
        row.state_digest,
        phases,
        confirms,
        tuple(str(each) for each in row.addresses),
    )
