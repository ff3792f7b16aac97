"""Rules of certificate signing requests: what may be asked, who asks, and how approval and certificate come to it.

Source: k8s.io/kubernetes/pkg/apis/certificates/validation and pkg/registry/certificates/certificates/strategy.go
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.row import meta_fields
from steersman.cluster.api.rules.fields import bad, bad_all, duplicate, forbidden, required, too_long, unsupported
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_1123_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.times import format_time

_USAGES = (
    "any", "cert sign", "client auth", "code signing", "content commitment", "crl sign", "data encipherment",
    "decipher only", "digital signature", "email protection", "encipher only", "ipsec end system", "ipsec tunnel",
    "ipsec user", "key agreement", "key encipherment", "microsoft sgc", "netscape sgc", "ocsp signing",
    "s/mime", "server auth", "signing", "timestamping",
)  # fmt: skip
_DECIDED = ("Approved", "Denied")
_BEGIN, _END = re.compile(rb"-----BEGIN ([A-Z ]+)-----"), b"-----END "
_LEGACY = "kubernetes.io/legacy-unknown"
_SECONDS_MIN = 600
_DOMAIN_BYTES_MAX = 253
#: a domain, a slash, and the name of a namespace and of an object with a dot between them
_SIGNER_BYTES_MAX = _DOMAIN_BYTES_MAX + 1 + 63 + 1 + 253


def default_request(obj: Obj) -> None:
    obj.setdefault("spec", {})


def request_fields(obj: Obj) -> dict[str, str]:
    return {**meta_fields(obj), "spec.signerName": (obj.get("spec") or {}).get("signerName", "")}


def prepare_create(obj: Obj, ctx: WriteContext) -> None:
    """Whoever asks is written into the request; it cannot be claimed."""
    spec = obj["spec"]
    for key in ("username", "uid", "groups", "extra"):
        spec.pop(key, None)
    extra = {key: list(values) for key, values in ctx.user_extra.items()}
    found = {"username": ctx.user, "uid": ctx.user_uid, "groups": list(ctx.groups), "extra": extra}
    spec.update({key: value for key, value in found.items() if value})


def prepare_update(new: Obj, old: Obj, _ctx: WriteContext) -> None:
    """The request itself never changes."""
    new["spec"] = old["spec"]


def approved(new: Obj, old: Obj) -> Obj:
    """The request with the conditions of an approval."""
    status = {key: value for key, value in (old.get("status") or {}).items() if key != "conditions"}
    conditions = (new.get("status") or {}).get("conditions")
    return {**old, "status": {**status, "conditions": conditions} if conditions else status}


def stamp_conditions(new: Obj, old: Obj, ctx: WriteContext) -> None:
    """Fills in the times of conditions that carry none."""
    before = {row.get("type"): row for row in (old.get("status") or {}).get("conditions") or ()}
    for row in (new.get("status") or {}).get("conditions") or ():
        row.setdefault("lastUpdateTime", format_time(ctx.now))
        if not row.get("lastTransitionTime"):
            last = before.get(row.get("type")) or {}
            same = last.get("status") == row.get("status") and last.get("lastTransitionTime")
            row["lastTransitionTime"] = last["lastTransitionTime"] if same else format_time(ctx.now)


def validate_request(obj: Obj) -> list[Cause]:
    spec = obj["spec"]
    causes: list[Cause] = []
    if wrong := _wrong_request(spec.get("request", "")):
        causes.append(bad("spec.request", spec.get("request", ""), wrong))
    usages = spec.get("usages") or []
    if not usages:
        causes.append(required("spec.usages"))
    for index, usage in enumerate(usages):
        if usage not in _USAGES:
            causes.append(unsupported(f"spec.usages[{index}]", usage, _USAGES))
    for index, usage in enumerate(usages):
        if usage in usages[:index]:
            causes.append(duplicate(f"spec.usages[{index}]", usage))
    signer = spec.get("signerName", "")
    if signer == _LEGACY:
        causes.append(bad("spec.signerName", signer, "the legacy signerName is not allowed via this API version"))
    else:
        causes += validate_signer("spec.signerName", signer)
    seconds = spec.get("expirationSeconds")
    if seconds is not None and seconds < _SECONDS_MIN:
        detail = "may not specify a duration less than 600 seconds (10 minutes)"
        causes.append(bad("spec.expirationSeconds", seconds, detail))
    return causes + _conditions(obj)


def validate_signer(path: str, name: str) -> list[Cause]:
    """The rules of a signer's name: a domain, a slash and a path."""
    if not name:
        return [required(path)]
    if name.count("/") != 1:
        detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
        return [bad(path, name, detail)]
    domain, _, rest = name.partition("/")
    causes = [too_long(path, _DOMAIN_BYTES_MAX)] if len(domain) > _DOMAIN_BYTES_MAX else []
    causes += _first_wrong_part(path, domain, label_1123_errors)
    if "." not in domain:
        causes.append(bad(path, domain, "should be a domain with at least two segments separated by dots"))
    causes += _first_wrong_part(path, rest, subdomain_errors)
    return causes + ([too_long(path, _SIGNER_BYTES_MAX)] if len(name) > _SIGNER_BYTES_MAX else [])


def _first_wrong_part(path: str, text: str, rule: Callable[[str], list[str]]) -> list[Cause]:
    for part in text.split("."):
        if errors := rule(part):
            return bad_all(path, text, [f'validating label "{part}": {error}' for error in errors])
    return []


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except (ValueError, binascii.Error):
        return b""


def _first_block(data: bytes) -> tuple[bytes, bytes]:
    """The type and the text of the first whole block of PEM; empty when there is none. Looks at every byte once."""
    end = -1
    for begin in _BEGIN.finditer(data):
        if end < begin.end():
            end = data.find(_END, begin.end())
        if end < 0:
            break
        line = _END + begin[1] + b"-----"
        if data.startswith(line, end):
            return begin[1], data[begin.start() : end + len(line)]
    return b"", b""


def _wrong_request(text: str) -> str:
    kind, block = _first_block(_decoded(text))
    if kind != b"CERTIFICATE REQUEST":
        return "PEM block type must be CERTIFICATE REQUEST"
    try:
        request = x509.load_pem_x509_csr(block)
        return "" if request.is_signature_valid else "x509: certificate signature does not verify"
    except (ValueError, UnsupportedAlgorithm) as error:
        return str(error)


def _conditions(obj: Obj) -> list[Cause]:
    causes: list[Cause] = []
    seen: set[str] = set()
    rows = (obj.get("status") or {}).get("conditions") or ()
    for index, row in enumerate(rows):
        path, kind, state = f"status.conditions[{index}]", row.get("type", ""), row.get("status", "")
        if not kind:
            causes.append(required(f"{path}.type"))
        if not state:
            causes.append(required(f"{path}.status"))
        elif kind in ("Approved", "Denied", "Failed") and state != "True":
            causes.append(unsupported(f"{path}.status", state, ("True",)))
        elif state not in ("True", "False", "Unknown"):
            causes.append(unsupported(f"{path}.status", state, ("False", "True", "Unknown")))
        other = {"Approved": "Denied", "Denied": "Approved"}.get(kind)
        if other in seen:
            detail = "Approved and Denied conditions are mutually exclusive"
            causes.append(bad("status.conditions", kind, detail))
        if kind in seen:
            causes.append(duplicate(f"{path}.type", kind))
        seen.add(kind)
    return causes


def _of_type(obj: Obj, kind: str) -> list[Mapping[str, object]]:
    return [row for row in (obj.get("status") or {}).get("conditions") or () if row.get("type") == kind]


def validate_update(new: Obj, old: Obj) -> list[Cause]:
    return _kept_decisions(new, old, may_add=False)


def validate_approval(new: Obj, old: Obj) -> list[Cause]:
    return _kept_decisions(new, old, may_add=True)


def validate_status(new: Obj, old: Obj) -> list[Cause]:
    """The certificate comes once; approval has a door of its own."""
    before, after = ((side.get("status") or {}).get("certificate", "") for side in (old, new))
    causes = _conditions(new)
    if after != before and (wrong := _wrong_certificate(_decoded(after))):
        causes.append(bad("status.certificate", "<certificate data>", wrong))
    causes += _kept_decisions(new, old, may_add=False)
    if before and after != before:
        causes.append(forbidden("status.certificate", "updates may not modify existing certificate content"))
    return causes


def _wrong_certificate(data: bytes) -> str:
    """What keeps bytes from being a chain of certificates; empty when nothing does."""
    count = 0
    while data:
        kind, block = _first_block(data)
        if not block:
            break
        if kind != b"CERTIFICATE":
            return f'only CERTIFICATE PEM blocks are allowed, found "{kind.decode()}"'
        if b":" in block.split(b"-----", 3)[2]:
            return "no PEM block headers are permitted"
        try:
            x509.load_pem_x509_certificate(block)
        except ValueError as error:
            return str(error)
        count += 1
        data = data[data.index(block) + len(block) :]
    return "" if count else "must contain at least one CERTIFICATE PEM block"


def _kept_decisions(new: Obj, old: Obj, *, may_add: bool) -> list[Cause]:
    def refused(verb: str, kind: str) -> Cause:
        return forbidden("status.conditions", f'updates may not {verb} a condition of type "{kind}"')

    causes = [
        refused("remove", kind) for kind in (*_DECIDED, "Failed") if len(_of_type(new, kind)) < len(_of_type(old, kind))
    ]
    if may_add:
        return causes
    for kind in _DECIDED:
        before, after = _of_type(old, kind), _of_type(new, kind)
        if len(after) > len(before):
            causes.append(refused("add", kind))
        elif len(after) == len(before) and after != before:
            causes.append(refused("modify", kind))
    return causes
