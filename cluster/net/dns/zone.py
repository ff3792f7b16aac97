"""The cluster's zone: every service's records by name, and the answer to a question about them.

It distinguishes a name that does not exist from one that exists without such a record, and never hands on a question
about its own domain: search paths make many of them, and each must end at once.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from steersman.cluster.net.dns.wire import (
    ANY,
    CNAME,
    NOERROR,
    NS,
    NXDOMAIN,
    SOA,
    SRV,
    TXT,
    A,
    Query,
    Record,
)

_VERSION = "1.1.0"
_NEGATIVE_TTL_S = 5
_CHAIN_MAX = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What to answer.

    Args:
        chase: a name outside the cluster that the answer leads to: its records, asked elsewhere, belong behind it.
    """

    code: int = NOERROR
    answers: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    chase: str = ""


class Zone:
    """The records of a cluster's domain."""

    def __init__(self, domain: str) -> None:
        self.domain = domain.lower().rstrip(".")
        #: service -> its records
        self._owned: dict[str, list[Record]] = {}
        #: name -> type -> records, in the order they came
        self._records: dict[str, dict[int, dict[Record, int]]] = {}
        #: how many records stand at or below a name of the domain
        self._standing: Counter[str] = Counter()
        self._namespaces: set[str] = set()
        #: of the zone, as its SOA record shows it; grows with every change
        self.serial = 1
        for name, kind, value in (
            (f"dns-version.{self.domain}", TXT, _VERSION),
            (self.domain, NS, f"ns.dns.{self.domain}"),
        ):
            self._add(Record(name, kind, 30, value))
        self._standing[f"svc.{self.domain}"] += 1
        self._standing[f"pod.{self.domain}"] += 1

    def set_service(self, key: str, records: Sequence[Record]) -> None:
        """Replaces the records of a service; with none it is forgotten."""
        if self._owned.get(key, []) == list(records):
            return
        for record in self._owned.pop(key, []):
            self._remove(record)
        if records:
            self._owned[key] = list(records)
            for record in records:
                self._add(record)

    def set_namespace(self, name: str, present: bool) -> None:
        if present:
            self._namespaces.add(name)
        else:
            self._namespaces.discard(name)

    def _add(self, record: Record) -> None:
        rows = self._records.setdefault(record.name, {}).setdefault(record.type, {})
        rows[record] = rows.get(record, 0) + 1
        for name in self._ancestors(record.name):
            self._standing[name] += 1

    def _remove(self, record: Record) -> None:
        types = self._records[record.name]
        types[record.type][record] -= 1
        if not types[record.type][record]:
            del types[record.type][record]
        if not types[record.type]:
            del types[record.type]
        if not types:
            del self._records[record.name]
        for name in self._ancestors(record.name):
            self._standing[name] -= 1
            if not self._standing[name]:
                del self._standing[name]

    def _ancestors(self, name: str) -> list[str]:
        """The name and those above it, up to the domain; nothing for a name elsewhere."""
        if not self._within(name):
            return []
        found = [name]
        while found[-1] != self.domain:
            found.append(found[-1].partition(".")[2])
        return found

    def _within(self, name: str) -> bool:
        return name == self.domain or name.endswith(f".{self.domain}")

    def answer(self, query: Query, turn: int = 0) -> Reply | None:
        """Returns the answer, or None when the question is not this zone's to answer.

        Args:
            turn: turns the order of addresses, so that clients that take the first spread out.
        """
        if not self._within(query.name):
            found = self._records.get(query.name, {}).get(query.type)
            return Reply(answers=tuple(found)) if found else None
        answers: list[Record] = []
        name = query.name
        for _ in range(_CHAIN_MAX):
            types = self._records.get(name) or self._pod_records(name)
            if types is None:
                break
            if query.type != CNAME and CNAME in types:
                (alias,) = list(types[CNAME])[:1]
                answers.append(alias)
                name = str(alias.value)
                if not self._within(name):
                    return Reply(answers=tuple(answers), chase=name)
                continue
            rows = self._rows(types, query.type)
            answers += [*rows[turn % len(rows) :], *rows[: turn % len(rows)]] if rows else []
            break
        if query.type == SOA and name == self.domain:
            answers.append(self._soa())
        if answers:
            return Reply(answers=tuple(answers), additional=self._targets(answers))
        exists = name in self._standing or self._is_namespace(name) or self._pod_records(name) is not None
        return Reply(code=NOERROR if exists else NXDOMAIN, authority=(self._soa(),))

    @staticmethod
    def _rows(types: dict[int, dict[Record, int]], kind: int) -> list[Record]:
        if kind == ANY:
            return [record for rows in types.values() for record in rows]
        return list(types.get(kind, ()))

    def _targets(self, answers: Sequence[Record]) -> tuple[Record, ...]:
        """The addresses of SRV targets, so that the client need not ask again."""
        names = dict.fromkeys(r.value[3] for r in answers if r.type == SRV and isinstance(r.value, tuple))
        return tuple(record for name in names for record in self._records.get(str(name), {}).get(A, ()))

    def _is_namespace(self, name: str) -> bool:
        for kind in ("svc", "pod"):
            suffix = f".{kind}.{self.domain}"
            if name.endswith(suffix) and name.removesuffix(suffix) in self._namespaces:
                return True
        return False

    def _pod_records(self, name: str) -> dict[int, dict[Record, int]] | None:
        """`10-244-0-5.NAMESPACE.pod.DOMAIN` is the address it spells."""
        suffix = f".pod.{self.domain}"
        if not name.endswith(suffix):
            return None
        dashed, _, namespace = name.removesuffix(suffix).partition(".")
        if namespace not in self._namespaces:
            return None
        try:
            address = str(ipaddress.IPv4Address(dashed.replace("-", ".")))
        except ValueError:
            return None
        return {A: {Record(name, A, _NEGATIVE_TTL_S, address): 1}}

    def _soa(self) -> Record:
        primary, mailbox = f"ns.dns.{self.domain}", f"hostmaster.{self.domain}"
        value = (primary, mailbox, self.serial, 7200, 1800, 86400, _NEGATIVE_TTL_S)
        return Record(self.domain, SOA, _NEGATIVE_TTL_S, value)
