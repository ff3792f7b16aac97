"""CertificateApproval, CertificateSigning and CertificateSubjectRestriction: who may have which certificate made.

Source: k8s.io/kubernetes/plugin/pkg/admission/certificates
"""

from __future__ import annotations

import base64
import binascii

from cryptography import x509
from cryptography.x509.oid import NameOID

from steersman.cluster.api.admission.attempt import Attempt
from steersman.cluster.api.cel import Question
from steersman.cluster.api.context import WriteContext
from steersman.cluster.meta.objects import Obj

_CLIENT = "kubernetes.io/kube-apiserver-client"
_MASTERS = "system:masters"


def validate_subject(attempt: Attempt, _ctx: WriteContext) -> None:
    """Refuses to ask for a client certificate with every right."""
    spec = (attempt.obj or {}).get("spec") or {}
    if spec.get("signerName") != _CLIENT:
        return
    try:
        request = x509.load_pem_x509_csr(base64.b64decode(spec.get("request") or ""))
    except (binascii.Error, ValueError):
        return  # validation has refused it
    groups = [row.value for row in request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    if _MASTERS in groups:
        raise attempt.forbidden(f"use of {_CLIENT} signer with {_MASTERS} group is not allowed")


def validate_approval(attempt: Attempt, ctx: WriteContext) -> None:
    """Refuses an approval (or denial) by somebody who may not approve for the signer."""
    signer = ((attempt.old or {}).get("spec") or {}).get("signerName", "")
    if not _may("approve", signer, ctx):
        raise attempt.forbidden(f'user not permitted to approve requests with signerName "{signer}"')


def validate_signing(attempt: Attempt, ctx: WriteContext) -> None:
    """Refuses a certificate (or failure) by somebody who may not sign for the signer."""
    old, new = (_issued(obj) for obj in (attempt.old, attempt.obj))
    signer = ((attempt.old or {}).get("spec") or {}).get("signerName", "")
    if old != new and not _may("sign", signer, ctx):
        raise attempt.forbidden(f'user not permitted to sign requests with signerName "{signer}"')


def _issued(obj: Obj | None) -> tuple[object, object]:
    status = (obj or {}).get("status") or {}
    failed = any(row.get("type") == "Failed" for row in status.get("conditions") or ())
    return status.get("certificate"), failed


def _may(verb: str, signer: str, ctx: WriteContext) -> bool:
    domain = signer.partition("/")[0]
    names = (signer, f"{domain}/*")
    return any(
        ctx.authorize(Question(verb=verb, group="certificates.k8s.io", resource="signers", name=name)).allowed
        for name in names
    )
