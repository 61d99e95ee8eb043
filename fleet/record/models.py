"""The tables of the record. Imported only where the record is used: SQLAlchemy costs 0.3 s."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Float, ForeignKey, Integer, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Model(DeclarativeBase):
    """What all tables have in common: a mapping is stored as JSON."""

    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON}


class RunRow(Model):
    """A rollout or the way back of one; times are seconds since the epoch."""

    __tablename__ = "runs"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    #: The run that this one takes back, empty for a rollout.
    of: Mapped[str] = mapped_column(String(64), default="")
    started: Mapped[float] = mapped_column(Float, index=True)
    ended: Mapped[float | None] = mapped_column(Float)
    #: user@host of who runs it, its process, and how often it was begun again.
    controller: Mapped[str] = mapped_column(String(256))
    pid: Mapped[int] = mapped_column(Integer)
    attempt: Mapped[int] = mapped_column(Integer, default=1)
    project: Mapped[str] = mapped_column(Text)
    revision: Mapped[str] = mapped_column(String(80), default="")
    options: Mapped[dict[str, Any]]
    stopped: Mapped[str] = mapped_column(Text, default="")


class HostRow(Model):
    """One host's part in a run; ``outcome`` is empty until it has one."""

    __tablename__ = "run_hosts"

    run: Mapped[str] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    host: Mapped[str] = mapped_column(String(256), primary_key=True)
    position: Mapped[int] = mapped_column(Integer)
    wave: Mapped[int | None] = mapped_column(Integer)
    outcome: Mapped[str] = mapped_column(String(32), default="")
    message: Mapped[str] = mapped_column(Text, default="")
    problems: Mapped[list[Any]]
    changes: Mapped[int] = mapped_column(Integer, default=0)
    seconds: Mapped[float | None] = mapped_column(Float)
    plan: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    plan_digest: Mapped[str] = mapped_column(String(64), default="")
    state_digest: Mapped[str] = mapped_column(String(64), default="")
    #: Set before the host is armed, so that whoever comes after a crash knows what to ask for.
    transaction: Mapped[str] = mapped_column(String(64), default="", index=True)
    nonce_hash: Mapped[str] = mapped_column(String(64), default="")
    addresses: Mapped[list[Any]]
    arming_at: Mapped[float | None] = mapped_column(Float)
    ended: Mapped[float | None] = mapped_column(Float)


class StateRow(Model):
    """A state as it went to a host, without secrets; the way back is a rollout to an older one."""

    __tablename__ = "states"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    state: Mapped[dict[str, Any]]
    #: Paths whose values are secret and were left out.
    withheld: Mapped[list[Any]]


class PhaseRow(Model):
    """How long a phase of a host took; ``began`` is seconds since the host's part began."""

    __tablename__ = "phases"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    run: Mapped[str] = mapped_column(String(64), index=True)
    host: Mapped[str] = mapped_column(String(256))
    name: Mapped[str] = mapped_column(String(32))
    began: Mapped[float] = mapped_column(Float)
    took: Mapped[float] = mapped_column(Float)


class ConfirmRow(Model):
    """A confirmation that a host answered, and what it answered."""

    __tablename__ = "confirms"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    run: Mapped[str] = mapped_column(String(64), index=True)
    host: Mapped[str] = mapped_column(String(256))
    transaction: Mapped[str] = mapped_column(String(64))
    address: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(32))
    at: Mapped[float] = mapped_column(Float)
