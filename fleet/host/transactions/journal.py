"""The journal of one transaction: records on the disk before what they announce.

The file is preallocated, so that neither a full disk nor a torn block can keep a transaction from
going on. It begins with MAGIC; each record is a length, a SHA-256 over the record before and this
one, and JSON. What follows the first record that does not check is never looked at: a torn record
announced something that had not begun.
"""

from __future__ import annotations

import errno
import os

from fleet.host import wire
from fleet.host.transactions import crash, files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Record = dict[str, Any]

MAGIC = b"fleet-journal-1\n"
#: Four bytes of length, then the digest in hex.
_HEADER = 4 + 64
#: No record may be longer: a length beyond it is a torn one.
_MOST = 1 << 24

PREPARED, ARMED, APPLYING, APPLIED = "PREPARED", "ARMED", "APPLYING", "APPLIED"
CONFIRMED, PERSISTING, COMMITTED = "CONFIRMED", "PERSISTING", "COMMITTED"
REVERTING, REVERTED, REVERT_FAILED = "REVERTING", "REVERTED", "REVERT_FAILED"
ABANDONED = "ABANDONED"

#: No way leads on from these, save a second attempt at a revert that failed.
TERMINAL = (COMMITTED, REVERTED, REVERT_FAILED, ABANDONED)
#: After these there is only forward.
FORWARD = (CONFIRMED, PERSISTING)

#: state → the states that may follow it; "" is the state before the first record.
FOLLOWING = {
    "": (PREPARED, ABANDONED),
    PREPARED: (ARMED, ABANDONED),
    ARMED: (APPLYING, APPLIED, REVERTING),
    APPLYING: (APPLYING, APPLIED, REVERTING),
    APPLIED: (APPLIED, CONFIRMED, REVERTING),
    CONFIRMED: (PERSISTING,),
    PERSISTING: (PERSISTING, COMMITTED),
    REVERTING: (REVERTING, REVERTED, REVERT_FAILED),
    REVERT_FAILED: (REVERTING,),
    COMMITTED: (),
    REVERTED: (),
    ABANDONED: (),
}


def encode(previous: str, record: Record) -> bytes:
    """Return a record as it lies in the file; ``previous`` is the digest of the one before."""
    payload = wire.dumps(record)
    digest = files.sha256(previous + payload)
    return len(payload).to_bytes(4, "big") + (digest + payload).encode("ascii")


def decode(data: bytes) -> tuple[list[Record], int, str, bool]:
    """Return the records that check, where they end, the last digest, and whether more follows.

    More after the last good record means that a record was torn or that something changed it.
    """
    records: list[Record] = []
    if data[: len(MAGIC)] != MAGIC:
        return records, 0, "", any(data)
    offset, previous = len(MAGIC), ""
    while True:
        length = int.from_bytes(data[offset : offset + 4], "big")
        end = offset + _HEADER + length
        if length == 0 or length > _MOST or end > len(data):
            break
        # latin-1 decodes whatever is there; anything but what was written fails the digest.
        digest = data[offset + 4 : offset + _HEADER].decode("latin-1")
        payload = data[offset + _HEADER : end].decode("latin-1")
        if digest != files.sha256(previous + payload):
            break
        records.append(wire.loads(payload))
        offset, previous = end, digest
    return records, offset, previous, any(data[offset:])


class Journal:
    """One transaction's journal, open for appending.

    ``damaged`` says that what follows the last good record is not empty.
    """

    NAME = "log"

    def __init__(self, directory: str, descriptor: int) -> None:
        self.directory = directory
        self.descriptor = descriptor
        self.records: list[Record] = []
        self.damaged = False
        self._offset, self._previous, self._size = 0, "", 0
        self.reload()

    @classmethod
    def create(cls, directory: str, size: int) -> Journal:
        """Make a transaction's directory and an empty journal whose space is allocated.

        Raises OSError, FileExistsError where there was a transaction of this name.
        """
        os.mkdir(directory, 0o700)
        path = f"{directory}/{cls.NAME}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
            os.pwrite(descriptor, MAGIC, 0)
            os.fsync(descriptor)
            files.sync_directory(directory)
            files.sync_directory(os.path.dirname(directory))
        except OSError:
            os.close(descriptor)
            raise
        return cls(directory, descriptor)

    @classmethod
    def open(cls, directory: str, write: bool = True) -> Journal:
        """Open an existing journal; raises OSError where there is none or it is not ours."""
        path = f"{directory}/{cls.NAME}"
        access = os.O_RDWR if write else os.O_RDONLY
        descriptor = os.open(path, access | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            files.check_private(descriptor, path)
            return cls(directory, descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    def reload(self) -> None:
        """Read the file again, for other processes of the transaction append to it too."""
        self._size = os.fstat(self.descriptor).st_size
        data = os.pread(self.descriptor, self._size, 0)
        self.records, self._offset, self._previous, self.damaged = decode(data)

    @property
    def state(self) -> str:
        """The state that the last good record announced; empty before the first."""
        return str(self.records[-1]["state"]) if self.records else ""

    def append(self, state: str, **fields: Any) -> None:
        """Write one record and wait until the disk has it.

        Raises ValueError for a state that cannot follow, OSError where the disk refuses.
        """
        if state not in FOLLOWING[self.state]:
            raise ValueError(f"{state} cannot follow {self.state or 'nothing'}")
        crash.point(f"journal.{state}.before")
        record = {"state": state, **fields}
        data = encode(self._previous, record)
        previous = data[4:_HEADER].decode("ascii")
        if self._offset == 0:
            data = MAGIC + data
        self._write(data)
        self.records.append(record)
        self._offset += len(data)
        self._previous = previous
        crash.point(f"journal.{state}.after")

    def _write(self, data: bytes) -> None:
        if self.damaged:
            # What a torn record left must not be taken for a record after the new one.
            os.pwrite(self.descriptor, bytes(max(0, self._size - self._offset)), self._offset)
            self.damaged = False
        written = 0
        while written < len(data):
            count = os.pwrite(self.descriptor, data[written:], self._offset + written)
            if count == 0:
                raise OSError(errno.EIO, "nothing was written", self.directory)
            written += count
        os.fdatasync(self.descriptor)

    def room(self) -> int:
        """Return how many allocated bytes are left for records."""
        return self._size - self._offset

    def close(self) -> None:
        """Close the file; the journal can still be read from memory."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
