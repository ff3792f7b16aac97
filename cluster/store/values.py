"""What is asked of the store and what it answers: etcd v3's requests as frozen values.

They are msgspec structs, laid out as tagged arrays, so that one native-speed encoding (`codec.py`) serves the log, the
snapshot and the wire; fields may be appended, with a default, and never removed or moved.

Source: https://etcd.io/docs/v3.5/learning/api/
"""

from __future__ import annotations

from enum import Enum

from msgspec import Struct


class KeyValue(Struct, frozen=True, array_like=True, gc=False):
    """One version of a key.

    Args:
        create_revision: revision at which the key was last created.
        mod_revision: revision of this version.
        version: 1 at creation, one more at each change.
        lease: id of the lease the key is bound to; 0 for none.
    """

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int = 0


class SortOrder(Enum):
    NONE = 0
    ASCEND = 1
    DESCEND = 2


class SortTarget(Enum):
    KEY = 0
    VERSION = 1
    CREATE = 2
    MOD = 3
    VALUE = 4


class Selection(Struct, frozen=True, kw_only=True, array_like=True):
    """An order other than that of keys, and bounds of the revisions of the keys answered; a bound of 0 is none."""

    order: SortOrder = SortOrder.NONE
    target: SortTarget = SortTarget.KEY
    min_mod_revision: int = 0
    max_mod_revision: int = 0
    min_create_revision: int = 0
    max_create_revision: int = 0


class Range(Struct, frozen=True, kw_only=True, array_like=True, tag=1):
    """Reads `[key, range_end)`; with no `range_end` the one key; `range_end=b"\\0"` means to the end.

    Args:
        revision: read at this revision; 0 for the newest.
        limit: at most so many; 0 for all.
        serializable: a member may answer from its own state without asking the quorum.
        selection: None for all keys of the range in their order.
    """

    key: bytes
    range_end: bytes = b""
    revision: int = 0
    limit: int = 0
    keys_only: bool = False
    count_only: bool = False
    serializable: bool = False
    selection: Selection | None = None


class RangeResult(Struct, frozen=True, kw_only=True, array_like=True, tag=1):
    """Args: count: keys in the range, whatever the limit; revision: the store's at the time of the answer."""

    kvs: tuple[KeyValue, ...]
    count: int
    more: bool
    revision: int


class Put(Struct, frozen=True, kw_only=True, array_like=True, tag=2):
    """Args: keep_value, keep_lease: leave what the key has, which must exist."""

    key: bytes
    value: bytes
    lease: int = 0
    prev_kv: bool = False
    keep_value: bool = False
    keep_lease: bool = False


class DeleteRange(Struct, frozen=True, kw_only=True, array_like=True, tag=3):
    key: bytes
    range_end: bytes = b""
    prev_kv: bool = False


class CompareTarget(Enum):
    VERSION = 0
    CREATE = 1
    MOD = 2
    VALUE = 3
    LEASE = 4


class CompareOperator(Enum):
    EQUAL = 0
    GREATER = 1
    LESS = 2
    NOT_EQUAL = 3


class Compare(Struct, frozen=True, kw_only=True, array_like=True):
    """A condition of a transaction; a key that does not exist has version, revisions and lease 0."""

    key: bytes
    target: CompareTarget
    operator: CompareOperator = CompareOperator.EQUAL
    operand: int | bytes = 0
    range_end: bytes = b""


class Txn(Struct, frozen=True, kw_only=True, array_like=True, tag=4):
    """All of `success` when every comparison holds, else all of `failure`; one revision for the whole."""

    compare: tuple[Compare, ...] = ()
    success: tuple[Range | Put | DeleteRange | Txn, ...] = ()
    failure: tuple[Range | Put | DeleteRange | Txn, ...] = ()


class PutResult(Struct, frozen=True, kw_only=True, array_like=True, tag=2):
    revision: int
    prev_kv: KeyValue | None = None


class DeleteResult(Struct, frozen=True, kw_only=True, array_like=True, tag=3):
    revision: int
    deleted: int
    prev_kvs: tuple[KeyValue, ...] = ()


class TxnResult(Struct, frozen=True, kw_only=True, array_like=True, tag=4):
    revision: int
    succeeded: bool
    results: tuple[RangeResult | PutResult | DeleteResult | TxnResult, ...] = ()


class WatchEvent(Struct, frozen=True, array_like=True, gc=False):
    """A change: a put has `kv`; a delete has `kv` with an empty value and the revision of the delete.

    Args:
        prev_kv: the version before; None at creation or when compacted away.
    """

    deleted: bool
    kv: KeyValue
    prev_kv: KeyValue | None = None


class WatchBatch(Struct, frozen=True, array_like=True):
    """Events in order of revision, never splitting a revision; empty for a mere progress report.

    Args:
        revision: every change up to it has been delivered.
    """

    revision: int
    events: tuple[WatchEvent, ...] = ()


class StoreError(Exception):
    """A refusal or failure of the store."""


class Compacted(StoreError):
    """The wanted revision is gone; read anew. `revision` is the oldest that can be watched or read."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"required revision has been compacted; the oldest is {revision}")
        self.revision = revision


class FutureRevision(StoreError):
    """The wanted revision has not been reached."""


class Unavailable(StoreError):
    """No leader or no answer in time; whether a write took effect is unknown. Read before retrying it."""


class LeaseNotFound(StoreError):
    """The lease does not exist or has expired."""


class LeaseExists(StoreError):
    """The wanted lease id is taken."""


class LeaseTooLong(StoreError):
    """The wanted time to live is longer than any lease may last."""


class InvalidRequest(StoreError):
    """The request makes no sense (an empty key, a key written twice in one transaction); it can never succeed."""


class TooLarge(StoreError):
    """The request is larger than the store takes; it can never succeed."""


class NoSpace(StoreError):
    """The disk is full: reads go on, writes are refused until space is freed and the alarm disarmed."""
