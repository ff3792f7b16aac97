from __future__ import annotations

from typing import Any

import pytest

from steersman.cluster.meta.jsonpath import JsonPath, JsonPathError, relaxed

LIST: dict[str, Any] = {
    "kind": "List",
    "items": [
        {"metadata": {"name": "a", "labels": {"app.kubernetes.io/name": "x"}}, "spec": {"n": 3, "ok": True}},
        {"metadata": {"name": "b"}, "spec": {"n": 7, "ports": [{"port": 80}, {"port": 443}]}},
        {"metadata": {"name": "c"}, "spec": {"n": 2.5}},
    ],
}

TEMPLATES = [
    ("{.kind}", "List"),
    ("{$.kind}", "List"),
    ("{@.kind}", "List"),
    ("kind is {.kind}!", "kind is List!"),
    ("{.items[*].metadata.name}", "a b c"),
    ("{.items[0].metadata.name}", "a"),
    ("{.items[-1].metadata.name}", "c"),
    ("{.items[-1:].metadata.name}", "c"),
    ("{.items[0:2].metadata.name}", "a b"),
    ("{.items[::2].metadata.name}", "a c"),
    ("{.items[0,2].metadata.name}", "a c"),
    ("{.items[*]['metadata.name', 'kind']}", ""),
    ("{.items[0].metadata.labels.app\\.kubernetes\\.io/name}", "x"),
    ("{.items[0].metadata.labels['app.kubernetes.io/name']}", "x"),
    ("{..port}", "80 443"),
    ("{.items[*].spec.ports[*].port}", "80 443"),
    ('{range .items[*]}{.metadata.name}{"\\t"}{.spec.n}{"\\n"}{end}', "a\t3\nb\t7\nc\t2.5\n"),
    ("{range .items[*]}{.metadata.name}:{range .spec.ports[*]}{.port},{end};{end}", "a:;b:80,443,;c:;"),
    ("{.items[?(@.spec.n>2.5)].metadata.name}", "a b"),
    ('{.items[?(@.metadata.name=="b")].spec.n}', "7"),
    ("{.items[?(@.metadata.name!='b')].spec.n}", "3 2.5"),
    ("{.items[?(@.spec.ok)].metadata.name}", "a"),
    ("{.items[?(@.spec.ok==true)].metadata.name}", "a"),
    ("{.items[?(@.spec.n>2&&@.spec.n<5)].metadata.name}", "a c"),
    ('{.items[?(@.spec.n==7||@.metadata.name=="c")].metadata.name}', "b c"),
    ("{.items[1].spec}", '{"n":7,"ports":[{"port":80},{"port":443}]}'),
    ("{.items[0].spec.*}", "3 true"),
    ("{.nope.deeper}", ""),
    ("{.items[9].metadata.name}", ""),
    ("{\"text\"}{.kind}{' more'}", "textList more"),
    ("no paths", "no paths"),
]


@pytest.mark.parametrize("template,expected", TEMPLATES, ids=[row[0] for row in TEMPLATES])
def test_template(template: str, expected: str) -> None:
    assert JsonPath(template).text(LIST) == expected


@pytest.mark.parametrize(
    "template", ["{.a", "{range .a}x", "{.a[}", "{.a[x]}", '{"open}', "{end}", "{.a[?(@.b]}", "{.a[1:2:0]}", "{)}"]
)
def test_a_malformed_template_says_where(template: str) -> None:
    with pytest.raises(JsonPathError, match=r"."):
        JsonPath(template)


def test_missing_fields_are_told_when_asked() -> None:
    with pytest.raises(JsonPathError, match="nope is not found"):
        JsonPath("{.nope}").text(LIST, allow_missing=False)
    with pytest.raises(JsonPathError, match="out of bounds"):
        JsonPath("{.items[9]}").text(LIST, allow_missing=False)


@pytest.mark.parametrize("text", ["metadata.name", ".metadata.name", "{.metadata.name}"])
def test_bare_paths_are_accepted(text: str) -> None:
    assert JsonPath(relaxed(text)).text({"metadata": {"name": "x"}}) == "x"


def test_values_keep_their_types() -> None:
    assert JsonPath("{.items[*].spec.n}").values(LIST) == [3, 7, 2.5]
    assert JsonPath("{.nothing}").values(LIST) == []
