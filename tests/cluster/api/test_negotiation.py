"""In which media type and shape clients are answered."""

from __future__ import annotations

import pytest

from steersman.cluster.api.negotiation import (
    JSON,
    PARTIAL,
    PARTIAL_LIST,
    PROTOBUF,
    TABLE,
    YAML,
    Accepted,
    is_for_people,
    negotiate,
)
from steersman.cluster.meta.errors import NotAcceptable

V1 = "meta.k8s.io/v1"
AS_TABLE, AS_PARTIAL = ";as=Table;v=v1;g=meta.k8s.io", ";as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
#: kubectl get, and client-go's metadata client
KUBECTL = f"{JSON}{AS_TABLE},{JSON};as=Table;v=v1beta1;g=meta.k8s.io,{JSON}"
METADATA = f"{PROTOBUF}{AS_PARTIAL},{JSON}{AS_PARTIAL},{JSON}"

TAKEN = {
    "": Accepted(),
    "*/*": Accepted(),
    "application/*": Accepted(),
    JSON: Accepted(),
    f"{JSON};charset=utf-8": Accepted(),
    f"{JSON};pretty=1": Accepted(pretty=True),
    YAML: Accepted(YAML),
    "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8": Accepted(),
    f"{JSON};q=0.5,{YAML}": Accepted(YAML),
    f"*/*,{YAML}": Accepted(YAML),
    PROTOBUF: Accepted(PROTOBUF),
    f"{PROTOBUF},{JSON}": Accepted(),
    KUBECTL: Accepted(JSON, TABLE, V1),
    f"{YAML}{AS_TABLE}": Accepted(YAML, TABLE, V1),
    f"{PROTOBUF}{AS_TABLE},{JSON}": Accepted(),
    f"{JSON};as=Table;v=v2;g=meta.k8s.io,{JSON}": Accepted(),
    f"{JSON};as=Pod;v=v1;g=meta.k8s.io,{JSON}": Accepted(),
    f"{JSON};as=Table;v=v1beta1;g=meta.k8s.io": Accepted(JSON, TABLE, "meta.k8s.io/v1beta1"),
    METADATA: Accepted(JSON, PARTIAL, V1),
    f"{PROTOBUF}{AS_PARTIAL}": Accepted(PROTOBUF, PARTIAL, V1),
    f"{JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1": Accepted(JSON, PARTIAL_LIST, V1),
    f"application/cbor,{JSON};q=0.1": Accepted(),
    f"{JSON};stream=watch": Accepted(),
    f"{JSON};sv=v1": Accepted(),
    f"{JSON};sv=v2,{YAML}": Accepted(YAML),
}


@pytest.mark.parametrize("header", TAKEN)
def test_the_first_clause_that_can_be_served_wins(header: str) -> None:
    assert negotiate(header) == TAKEN[header]


ALL = "application/json, application/yaml, application/vnd.kubernetes.protobuf"
STREAMS = "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
REFUSED = [
    ("image/png", {}, ALL),
    ("application/cbor", {}, ALL),
    (f"{JSON};as=Table;v=v1;g=example.com", {}, ALL),
    (f"{JSON};stream=other", {}, ALL),
    (f"{JSON}{AS_TABLE}", {"tabular": False}, ALL),
    (PROTOBUF, {"has_protobuf": False}, ALL),
    (YAML, {"stream": True}, STREAMS),
    ("application/cbor-seq", {"stream": True}, STREAMS),
]


@pytest.mark.parametrize(("header", "how", "served"), REFUSED)
def test_what_cannot_be_served_is_told(header: str, how: dict[str, bool], served: str) -> None:
    with pytest.raises(NotAcceptable) as raised:
        negotiate(header, **how)
    assert raised.value.message == f"only the following media types are accepted: {served}"


def test_a_kind_without_protobuf_has_its_metadata_in_it() -> None:
    assert negotiate(f"{PROTOBUF}{AS_PARTIAL}", has_protobuf=False) == Accepted(PROTOBUF, PARTIAL, V1)
    assert negotiate(f"{YAML},{JSON}", stream=True) == Accepted()


@pytest.mark.parametrize(
    ("pretty", "agent", "wanted"),
    [
        ("", "curl/8.5.0", True), ("", "Wget/1.21", True), ("", "Mozilla/5.0", True), ("", "kubectl/v1.36", False),
        ("true", "kubectl/v1.36", True), ("0", "curl/8.5.0", False), ("yes", "curl/8.5.0", False),
    ],
)  # fmt: skip
def test_people_are_answered_with_indentation(pretty: str, agent: str, wanted: bool) -> None:
    assert is_for_people(pretty, agent) is wanted
