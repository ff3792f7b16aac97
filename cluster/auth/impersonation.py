"""Acting as somebody else: who is meant, which ways there are, and what the one who asks must be allowed for each.

The constrained ways ask for the right to act as somebody of a sort (`impersonate:serviceaccount`), and for that to do
just this as such a one (`impersonate-on:serviceaccount:list`); the way of old asks for `impersonate` alone.

Source: k8s.io/apiserver/pkg/endpoints/filters/impersonation
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from steersman.cluster.auth.attributes import Attributes, Verdict
from steersman.cluster.auth.identity import ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, extra_key, header_text
from steersman.cluster.auth.tokens import Identity
from steersman.cluster.meta.names import label_1123_errors, subdomain_errors

_GROUP, _VERSION = "authentication.k8s.io", "v1"
_USER, _UID, _GROUPS, _EXTRA = "impersonate-user", "impersonate-uid", "impersonate-group", "impersonate-extra-"
_NODE, _ACCOUNT = "system:node:", "system:serviceaccount:"
_NODE_NAME = "authentication.kubernetes.io/node-name"
_MASTERS = "system:masters"
#: so many values are first asked for all at once
_MANY = 4


class Refused(Exception):
    """The one who asks may not act so. Args: attributes: what is not allowed; detail: why."""

    def __init__(self, attributes: Attributes, detail: str) -> None:
        super().__init__(detail)
        self.attributes, self.detail = attributes, detail


@dataclass(frozen=True, slots=True)
class _Asker:
    """Who asks, and the authorizer."""

    name: str
    extra: Mapping[str, tuple[str, ...]]
    judge: Callable[[Attributes, Mapping[str, tuple[str, ...]] | None], Verdict]
    #: what authorizers are shown of the asker's extra instead of it
    shown: Mapping[str, tuple[str, ...]] | None = None

    def check(self, attributes: Attributes) -> None:
        verdict = self.judge(attributes, self.shown)
        if not verdict.allowed:
            raise Refused(attributes, ": ".join(filter(None, (verdict.error, verdict.reason))))

    def may(self, attributes: Attributes) -> bool:
        return self.judge(attributes, self.shown).allowed


def is_wanted(headers: Mapping[str, str]) -> bool:
    """Whether a request says something of whom it wants to act as."""
    for key in headers:  # noqa: SIM110 a generator costs every request a microsecond more
        if key.startswith("impersonate-"):
            return True
    return False


def wanted_identity(headers: Mapping[str, str]) -> Identity | None:
    """Whom a request wants to act as, as its headers say; None when it asks for nothing of the kind.

    Args:
        headers: names in lower case, repeated ones joined with line breaks.

    Raises:
        ValueError: groups, a uid or extras are given without a user.
    """
    name, uid = (header_text(headers.get(key, "").partition("\n")[0]) for key in (_USER, _UID))
    groups = tuple(header_text(headers[_GROUPS]).split("\n")) if _GROUPS in headers else ()
    extra = {
        extra_key(key[len(_EXTRA) :]): tuple(header_text(value).split("\n"))
        for key, value in sorted(headers.items())
        if key.startswith(_EXTRA)
    }
    if not name:
        if not (uid or groups or extra):
            return None
        rows = ", ".join(json.dumps(group) for group in groups)
        shown = f"[]string{{{rows}}}" if groups else "[]string(nil)"
        more = f"{{{', '.join(map(_shown, extra.items()))}}}" if extra else "(nil)"
        user = f'&user.DefaultInfo{{Name:"", UID:{json.dumps(uid)}, Groups:{shown}, Extra:map[string][]string{more}}}'
        raise ValueError(f"requested {user} without impersonating a user name")
    return Identity(name=name, groups=groups, uid=uid, extra=tuple(extra.items()))


def _shown(row: tuple[str, tuple[str, ...]]) -> str:
    key, values = row
    return f"{json.dumps(key)}:[]string{{{', '.join(map(json.dumps, values))}}}"


def act_as(
    wanted: Identity,
    about: Attributes,
    name: str,
    extra: Mapping[str, tuple[str, ...]],
    judge: Callable[[Attributes, Mapping[str, tuple[str, ...]] | None], Verdict],
    *,
    constrained: bool,
) -> tuple[Identity, str]:
    """Returns as whom a request acts, and by which constraint; empty for the way of old, which has none.

    Args:
        about: what the request asks for.
        name, extra: of the one who asks.
        judge: whether the one who asks may do something; the second argument is shown for the extra, where given.
        constrained: whether there are other ways than that of old.

    Raises:
        Refused: no way is allowed; it says what the first one lacks.
    """
    asker = _Asker(name, extra, judge)
    first: Refused | None = None
    for way in (*(_WAYS if constrained else ()), _legacy):
        try:
            found = way(asker, wanted, about)
        except Refused as refused:
            first = first or refused
            continue
        if found is not None:
            return found
    assert first is not None
    raise first


_Way = Callable[[_Asker, Identity, Attributes], tuple[Identity, str] | None]


def _associated_node(asker: _Asker, wanted: Identity, about: Attributes) -> tuple[Identity, str] | None:
    node = _node(wanted.name)
    if not node or not _is_bare(wanted) or not _account(asker.name) or asker.extra.get(_NODE_NAME) != (node,):
        return None
    # an answer must not depend on the node
    keys = {"authentication.kubernetes.io/associated-node-keys": tuple(sorted(asker.extra))}
    return _constrained("associated-node", dataclasses.replace(asker, shown=keys), wanted, about, name="*")


def _arbitrary_node(asker: _Asker, wanted: Identity, about: Attributes) -> tuple[Identity, str] | None:
    return _constrained("arbitrary-node", asker, wanted, about) if _node(wanted.name) and _is_bare(wanted) else None


def _service_account(asker: _Asker, wanted: Identity, about: Attributes) -> tuple[Identity, str] | None:
    return _constrained("serviceaccount", asker, wanted, about) if _account(wanted.name) and _is_bare(wanted) else None


def _user_info(asker: _Asker, wanted: Identity, about: Attributes) -> tuple[Identity, str] | None:
    if _node(wanted.name) or _account(wanted.name):
        return None
    return _constrained("user-info", asker, wanted, about)


_WAYS: tuple[_Way, ...] = (_associated_node, _arbitrary_node, _service_account, _user_info)


def _constrained(mode: str, asker: _Asker, wanted: Identity, about: Attributes, name: str = "") -> tuple[Identity, str]:
    asker.check(replace(about, verb=f"impersonate-on:{mode}:{about.verb}"))
    verb = f"impersonate:{mode}"
    node, account = _node(wanted.name), _account(wanted.name)
    if node:
        asker.check(_right(verb, "nodes", name or node))
    elif account:
        asker.check(replace(_right(verb, "serviceaccounts", account[1]), namespace=account[0]))
    else:
        asker.check(_right(verb, "users", wanted.name))
    if wanted.uid:
        asker.check(_right(verb, "uids", wanted.uid))
    groups = _right(verb, "groups")
    if "" in wanted.groups:
        raise Refused(groups, "impersonating the empty string group is not allowed")
    if _MASTERS in wanted.groups:
        raise Refused(replace(groups, name=_MASTERS), "impersonating the system:masters group is not allowed")
    if len(wanted.groups) < _MANY or not asker.may(replace(groups, name="*")):
        for group in wanted.groups:
            asker.check(replace(groups, name=group))
    _check_extra(asker, wanted, _right(verb, "userextras"))
    fixed = ("system:nodes",) if node else _account_groups(account) if account else wanted.groups
    return _completed(wanted, fixed), verb


def _check_extra(asker: _Asker, wanted: Identity, extras: Attributes) -> None:
    for key, values in wanted.extra:
        if wrong := _wrong_extra(key, values):
            raise Refused(extras, wrong)
    many = len(wanted.extra) >= _MANY or sum(len(values) for _, values in wanted.extra) >= _MANY
    if many and asker.may(replace(extras, subresource="*", name="*")):
        return
    for right in _extra_rights(extras, wanted):
        asker.check(right)


def _extra_rights(extras: Attributes, wanted: Identity) -> Iterator[Attributes]:
    return (replace(extras, subresource=key, name=value) for key, values in wanted.extra for value in values)


def _wrong_extra(key: str, values: tuple[str, ...]) -> str:
    domain, slash, rest = key.partition("/")
    if not key:
        return "impersonating the empty string key in extra is not allowed"
    if not slash or not rest or subdomain_errors(domain):
        text = f'extra.key: Invalid value: "{key}": must be a domain-prefixed path (such as "acme.io/foo")'
        return f"impersonating an invalid key in extra is not allowed: {text}"
    if "" in values:
        return "impersonating the empty string value in extra is not allowed"
    return ""


def _legacy(asker: _Asker, wanted: Identity, _about: Attributes) -> tuple[Identity, str]:
    account = _account(wanted.name)
    named = Attributes("impersonate", version="v1", resource="users", name=wanted.name)
    if account:
        named = replace(named, resource="serviceaccounts", namespace=account[0], name=account[1])
    asker.check(named)
    if wanted.uid:
        asker.check(_right("impersonate", "uids", wanted.uid))
    for group in wanted.groups:
        asker.check(Attributes("impersonate", version="v1", resource="groups", name=group))
    for right in _extra_rights(_right("impersonate", "userextras"), wanted):
        asker.check(right)
    groups = wanted.groups or (_account_groups(account) if account else ())
    return _completed(wanted, groups), ""


def _right(verb: str, resource: str, name: str = "") -> Attributes:
    return Attributes(verb, group=_GROUP, version=_VERSION, resource=resource, name=name)


def _completed(wanted: Identity, groups: Iterable[str]) -> Identity:
    """The identity with the group that everybody is in."""
    found = dict.fromkeys(groups)
    if wanted.name == ANONYMOUS.name:
        found[UNAUTHENTICATED] = None
    elif UNAUTHENTICATED not in found:
        found[AUTHENTICATED] = None
    return dataclasses.replace(wanted, groups=tuple(found))


def _is_bare(wanted: Identity) -> bool:
    return not (wanted.uid or wanted.groups or wanted.extra)


def _node(name: str) -> str:
    node = name.removeprefix(_NODE)
    return node if node != name and not subdomain_errors(node) else ""


def _account(name: str) -> tuple[str, str] | None:
    """Namespace and name of a service account that is meant."""
    namespace, colon, account = name.removeprefix(_ACCOUNT).partition(":")
    if not name.startswith(_ACCOUNT) or not colon or label_1123_errors(namespace) or subdomain_errors(account):
        return None
    return namespace, account


def _account_groups(account: tuple[str, str]) -> tuple[str, ...]:
    return "system:serviceaccounts", f"system:serviceaccounts:{account[0]}"
