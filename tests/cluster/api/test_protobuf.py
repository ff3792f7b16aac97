from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import orjson
import pytest

from steersman.cluster.api.protobuf.codec import MAGIC, ProtobufError, decode, encode
from steersman.cluster.api.protobuf.wire import write_field

WIRE = Path(__file__).parents[3] / "../shared/data/wire"
FIXTURES = sorted(path.stem for path in WIRE.glob("*.pb")) if WIRE.is_dir() else []
needs_fixtures = pytest.mark.skipif(not FIXTURES, reason="the wire fixtures are not on this machine")


@needs_fixtures
@pytest.mark.parametrize("name", FIXTURES)
def test_a_body_decodes_to_the_json_of_the_same_object_and_back(name: str) -> None:
    body = (WIRE / f"{name}.pb").read_bytes()
    wanted = orjson.loads((WIRE / f"{name}.json").read_bytes())
    if name == "core.v1.WatchEvent":  # an event of a stream names no kind of its own
        assert decode(body, "v1", "WatchEvent") == {"apiVersion": "v1", "kind": "WatchEvent", **wanted}
        return
    found = decode(body)
    assert found == wanted
    assert encode(found) == body


@pytest.mark.parametrize(
    "obj",
    [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": {"replicas": 0}},
        {"apiVersion": "v1", "kind": "Pod", "spec": {"enableServiceLinks": False, "terminationGracePeriodSeconds": 0}},
        {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": {"holderIdentity": ""}},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": {"storageClassName": ""}},
        {"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 80, "targetPort": "http"}]}},
    ],
    ids=lambda obj: obj["kind"],
)
def test_a_zero_that_means_something_is_kept(obj: dict[str, Any]) -> None:
    found = decode(encode(obj))
    for key, value in obj.get("spec", {}).items():
        assert found["spec"][key] == value


def test_a_zero_that_means_nothing_is_dropped() -> None:
    container = {"name": "a", "image": "", "workingDir": "", "stdin": False}
    found = decode(encode({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [container]}}))
    assert found["spec"]["containers"] == [{"name": "a"}]


def test_an_envelope_may_carry_json() -> None:
    body = MAGIC + write_field(2, b'{"kind":"Pod"}') + write_field(4, b"application/json")
    assert decode(body) == {"kind": "Pod"}


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", MAGIC, MAGIC + b"\xff", MAGIC + write_field(2, b"\x0a\xff"),
        MAGIC + write_field(1, write_field(1, b"v1") + write_field(2, b"Nonsense")),
        MAGIC + write_field(1, write_field(1, b"v1") + write_field(2, b"Pod")) + write_field(2, b"\x08\x01"),
        MAGIC + write_field(1, write_field(1, b"v1") + write_field(2, b"Pod")) + write_field(2, b"\x0a\x7f"),
        MAGIC + write_field(1, write_field(1, b"\xff\xfe") + write_field(2, b"Pod")),
    ],
)  # fmt: skip
def test_broken_bytes_are_refused_by_name(body: bytes) -> None:
    with pytest.raises(ProtobufError):
        decode(body)


@needs_fixtures
def test_no_damage_to_a_body_makes_anything_but_a_refusal() -> None:
    rng = random.Random(11)
    for name in FIXTURES:
        body = bytearray((WIRE / f"{name}.pb").read_bytes())
        for _ in range(6):
            damaged = bytearray(body)
            for _ in range(rng.randint(1, 6)):
                damaged[rng.randrange(4, len(damaged))] = rng.randrange(256)
            damaged = damaged[: rng.randint(4, len(damaged))]
            try:
                decode(bytes(damaged), "v1", "Pod")
            except ProtobufError:
                continue
