"""What is refused and in which words: text files say, for each kind, what breaks a rule and every cause that follows.

A file holds blocks. `kind PLURAL` and the YAML line below it (a good object) begin one. `create YAML` lays a merge
over the good object and creates that; `update YAML` and `status YAML` (or another subresource) change the good object
once it exists. `old YAML` lays a merge over the object that stands in the store when later lines of the block change
it: what older servers took. The indented lines below are the causes in order; `ok` means that nothing is wrong.
Run this module as a script to write the files anew from what the code says now, then read the difference.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from steersman.cluster.api.patch import merge_patch
from steersman.cluster.meta.errors import ApiError

FOLDER = Path(__file__).parent / "refusals"


@dataclass
class Case:
    plural: str
    good: dict[str, Any]
    verb: str
    text: str
    old: dict[str, Any] = field(default_factory=dict)
    wanted: list[str] = field(default_factory=list)

    @property
    def change(self) -> Any:
        return yaml.safe_load(self.text)


def cases(text: str) -> Iterator[Case]:
    lines = iter(text.splitlines())
    plural, good, old, case = "", {}, {}, None
    for line in lines:
        if line.startswith("  ") and case is not None:
            case.wanted.append(line.strip())
            continue
        if case is not None:
            yield case
            case = None
        verb, _, rest = line.partition(" ")
        if verb == "kind":
            plural, good, old = rest, yaml.safe_load(next(lines)), {}
        elif verb == "old":
            old = yaml.safe_load(rest)
        elif rest and verb != "#":
            case = Case(plural, good, verb, rest, old)
    if case is not None:
        yield case


def outcome(api: Any, case: Case) -> list[str]:
    """The causes as `field: message`, or `ok`."""
    good = orjson.loads(orjson.dumps(case.good))
    try:
        if case.verb == "create":
            api.create(case.plural, merge_patch(good, case.change))
        else:
            made = api.create(case.plural, good)
            key = api.row(case.plural).key(made["metadata"].get("namespace", ""), made["metadata"]["name"])
            api.objects[key] = merge_patch(made, case.old)
            part = "" if case.verb == "update" else case.verb
            api.patch(case.plural, made["metadata"]["name"], case.change, subresource=part)
    except ApiError as error:
        causes = [f"{cause.field}: {cause.message}" for cause in error.causes] or [error.message]
        return [cause.replace("\n", "\\n") for cause in causes]
    return ["ok"]


_ALL = [
    pytest.param(case, id=f"{path.stem}-{case.plural}-{case.verb}-{number}")
    for path in sorted(FOLDER.glob("*.txt"))
    for number, case in enumerate(cases(path.read_text()))
]


@pytest.mark.parametrize("case", _ALL)
def test_what_breaks_a_rule_is_refused_in_kubernetes_words(api: Any, case: Case) -> None:
    assert outcome(api, case) == case.wanted, f"{case.verb} {case.text}"


def _written_anew(path: Path, make_api: Any) -> None:
    found, last = [], ""
    for line in path.read_text().splitlines():
        if line.startswith("  "):
            continue
        found.append(line)
        if last.startswith("kind ") or line.startswith(("kind ", "old ", "#")) or not line.strip():
            last = line
            continue
        last = line
        case = list(cases("\n".join(found)))[-1]
        found += [f"  {cause}" for cause in outcome(make_api(), case)]
    path.write_text("\n".join(found) + "\n")


if __name__ == "__main__":
    from tests.cluster.api.conftest import Api, load_definitions

    from steersman.cluster.api.kinds import Registry

    shared = Registry(load_definitions(), "1.36")

    def _fresh() -> Api:
        registry = Registry(load_definitions(), "1.36")
        registry._compiled = shared._compiled
        made = Api(registry)
        made.create("namespaces", {"metadata": {"name": "default"}})
        made.create("serviceaccounts", {"metadata": {"name": "default"}})
        return made

    for name in sys.argv[1:] or [str(path) for path in sorted(FOLDER.glob("*.txt"))]:
        _written_anew(Path(name), _fresh)
