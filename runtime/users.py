"""Who a container's process is: names from the image's own passwd and group files, turned into numbers.

Source: passwd(5), group(5); the rules are those of `runAsUser`, `runAsGroup` and an image's `User`.
"""

from __future__ import annotations

from dataclasses import dataclass

from steersman.cluster.node.values import RuntimeFailure, SecurityContext


@dataclass(frozen=True, slots=True)
class Account:
    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = "/"


def resolve(security: SecurityContext, image_user: str, passwd: str, group: str) -> Account:
    """Decides the account of a container.

    Args:
        image_user: of the image's configuration: empty, `uid`, `name`, `uid:gid` or `name:group`.
        passwd, group: texts of the image's files, empty where it has none.

    Raises:
        RuntimeFailure: `CreateContainerError`: the image has no such user or group.
    """
    wanted, _, wanted_group = image_user.partition(":")
    if security.run_as_user is not None:
        wanted, wanted_group = str(security.run_as_user), ""
    row = _user(wanted or "0", passwd)
    if row is None and not wanted.isdigit() and wanted:
        raise RuntimeFailure(
            "CreateContainerError", f"unable to find user {wanted}: no matching entries in passwd file"
        )
    name, uid, gid, home = row or ("", int(wanted or 0), 0, "/")
    if wanted_group:
        gid = _group(wanted_group, group)
    if security.run_as_group is not None:
        gid = security.run_as_group
    # the primary group counts among them, or a file's refusal to that group could be walked around
    groups = [gid, *security.supplemental_groups]
    for fields in _rows(group, 4):
        if name and name in fields[3].split(",") and fields[2].isdigit():
            groups.append(int(fields[2]))
    return Account(uid, gid, tuple(dict.fromkeys(groups)), home or "/")


def _rows(text: str, width: int) -> list[list[str]]:
    return [fields for line in text.splitlines() if len(fields := line.strip().split(":")) >= width]


def _user(wanted: str, passwd: str) -> tuple[str, int, int, str] | None:
    for fields in _rows(passwd, 6):
        if wanted in (fields[0], fields[2]) and fields[2].isdigit() and fields[3].isdigit():
            return fields[0], int(fields[2]), int(fields[3]), fields[5]
    return None


def _group(wanted: str, group: str) -> int:
    for fields in _rows(group, 3):
        if wanted in (fields[0], fields[2]) and fields[2].isdigit():
            return int(fields[2])
    if wanted.isdigit():
        return int(wanted)
    raise RuntimeFailure("CreateContainerError", f"unable to find group {wanted}: no matching entries in group file")
