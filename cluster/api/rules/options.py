"""Rules of the options of a write, which come in its query.

Source: k8s.io/apimachinery/pkg/apis/meta/v1/validation/validation.go
"""

from __future__ import annotations

from collections.abc import Sequence

from steersman.cluster.api.rules.fields import bad, forbidden, required, too_long, unsupported
from steersman.cluster.meta import errors
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.remembered import remembered

#: bytes of a field manager's name
MANAGER_BYTES_MAX = 128


def dry_run(values: Sequence[str]) -> list[Cause]:
    wrong = any(value != "All" for value in values)
    return [unsupported("dryRun", list(values), ("All",))] if wrong else []


def field_manager(path: str, name: str) -> list[Cause]:
    """The rules of a field manager's name."""
    causes: list[Cause] = []
    if len(name.encode()) > MANAGER_BYTES_MAX:
        causes.append(too_long(path, MANAGER_BYTES_MAX))
    if not name.isprintable():
        for place, char in enumerate(name):
            if not char.isprintable():
                causes.append(bad(path, name, f"invalid character U+{ord(char):04X} (at position {place})"))
    return causes


@remembered(256)
def default_manager(user_agent: str) -> str:
    """The field manager of one who names none: what can be printed of the first word of the user agent."""
    word = "".join(char for char in user_agent.partition("/")[0] if char.isprintable())
    return word.encode()[:MANAGER_BYTES_MAX].decode("utf-8", "ignore") or "unknown"


def check(
    sort: str,
    *,
    manager: str,
    dry: Sequence[str] = (),
    validation: str = "",
    applies: bool = False,
    forces: bool = False,
) -> None:
    """Refuses options that make no sense.

    Args:
        sort: `CreateOptions`, `UpdateOptions` or `PatchOptions`.
        manager: the explicit field manager, empty for none.
        dry, validation: as the query says them.
        applies: whether they are those of an apply; forces: whether they say anything about force.

    Raises:
        Invalid: with every broken rule.
    """
    causes: list[Cause] = []
    if applies and not manager:
        causes.append(required("fieldManager", "is required for apply patch"))
    if forces and not applies:
        causes.append(forbidden("force", "may not be specified for non-apply patch"))
    causes += field_manager("fieldManager", manager)
    causes += dry_run(dry)
    if validation not in ("", "Ignore", "Strict", "Warn"):
        causes.append(unsupported("fieldValidation", validation, ("", "Ignore", "Strict", "Warn")))
    if causes:
        raise errors.invalid(sort, "", causes, "meta.k8s.io")
