"""Content negotiation: in which media type, and in which shape, a client wants its answer.

Source: k8s.io/apiserver/pkg/endpoints/handlers/negotiation; RFC 9110, section 12.5.1 (Accept). Protobuf is taken only
by who takes nothing else: JSON is what objects are kept in, and every client reads it.
"""

from __future__ import annotations

from dataclasses import dataclass

from steersman.cluster.meta.errors import NotAcceptable
from steersman.cluster.meta.remembered import remembered

JSON, YAML, PROTOBUF = "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"
_MEDIA, _STREAMS = (JSON, YAML, PROTOBUF), (JSON, PROTOBUF)
TABLE, PARTIAL, PARTIAL_LIST = "Table", "PartialObjectMetadata", "PartialObjectMetadataList"
AGGREGATED = "APIGroupDiscoveryList"
#: the shapes of answers that are no discovery, and the one of discovery, each in its groups and versions
_SHAPES = {(shape, f"meta.k8s.io/{v}") for shape in (TABLE, PARTIAL, PARTIAL_LIST) for v in ("v1", "v1beta1")}
_DISCOVERY_SHAPES = {(AGGREGATED, "apidiscovery.k8s.io/v2")}


@dataclass(frozen=True, slots=True)
class Accepted:
    """What is answered.

    Args:
        media: one of the three media types.
        shape: empty for whole objects, or `Table`, `PartialObjectMetadata`, `PartialObjectMetadataList`,
            `APIGroupDiscoveryList`.
        group_version: of the shape.
        pretty: whether JSON is indented, as the media type's parameter asks.
    """

    media: str = JSON
    shape: str = ""
    group_version: str = ""
    pretty: bool = False


@remembered(1024)
def negotiate(
    header: str, *, stream: bool = False, has_protobuf: bool = True, tabular: bool = True, discovery: bool = False
) -> Accepted:
    """Reads an `Accept` header; the first clause that can be served wins.

    Args:
        stream: of a watch, which is never YAML.
        has_protobuf: whether whole objects have a protobuf form.
        tabular: whether the answer has rows and columns at all.
        discovery: whether it is what there is to discover, which has a shape of its own.

    Raises:
        NotAcceptable: none can be served.
    """
    if not header:
        return Accepted()
    media = _STREAMS if stream else _MEDIA
    shapes = _DISCOVERY_SHAPES if discovery else _SHAPES
    found = [
        accepted
        for wanted, parameters in _clauses(header)
        for name in media
        if wanted in (name, "application/*", "*/*")
        and (accepted := _accepted(name, parameters, shapes)) is not None
        and (accepted.shape or has_protobuf or name != PROTOBUF)
        and (accepted.shape != TABLE or (tabular and name != PROTOBUF))
    ]
    for accepted in found:
        if accepted.media != PROTOBUF:
            return accepted
    if found:
        return found[0]
    served = ", ".join(f"{name};stream=watch" if stream else name for name in media)
    raise NotAcceptable(f"only the following media types are accepted: {served}")


def _clauses(header: str) -> list[tuple[str, dict[str, str]]]:
    """The media types with their parameters, the most wanted first, and of equal ones the most specific."""
    clauses: list[tuple[tuple[float, int], str, dict[str, str]]] = []
    for clause in header.split(","):
        wanted, *rows = (part.strip() for part in clause.split(";"))
        parameters = dict(row.split("=", 1) for row in rows if "=" in row)
        try:
            quality = float(parameters.pop("q", "1"))
        except ValueError:
            quality = 1.0
        clauses.append(((-quality, wanted.count("*")), wanted, parameters))
    return [(wanted, parameters) for _, wanted, parameters in sorted(clauses, key=lambda row: row[0])]


def _accepted(media: str, parameters: dict[str, str], shapes: set[tuple[str, str]]) -> Accepted | None:
    """What a clause means for a media type; None when it asks for what there is nowhere."""
    if parameters.get("stream", "watch") not in ("watch", "") or parameters.get("sv", "v1") not in ("v1", ""):
        return None
    pretty = parameters.get("pretty") == "1"
    if not parameters.keys() & {"as", "g", "v"}:
        return Accepted(media, pretty=pretty)
    shape, group, version = (parameters.get(key, "") for key in ("as", "g", "v"))
    wanted = shape, f"{group}/{version}"
    return Accepted(media, *wanted, pretty) if wanted in shapes else None


def is_for_people(pretty: str, user_agent: str) -> bool:
    """Whether JSON is indented: as the query's `pretty` says, else for browsers and command line tools."""
    if pretty:
        return pretty in ("1", "t", "T", "TRUE", "true", "True")
    return user_agent.startswith(("curl", "Wget", "Mozilla/5.0"))
