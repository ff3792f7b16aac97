"""CustomResourceDefinitions: what they may say, in Kubernetes' words and at its paths."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from steersman.cluster.meta.errors import Invalid
from steersman.cluster.meta.objects import condition

SCHEMA = "spec.validation.openAPIV3Schema"
ROOT = f"{SCHEMA}.properties[spec]"
STRING = {"type": "string"}


def _crd(schema: Any = None, names: Any = None, **version: Any) -> dict[str, Any]:
    row = {"name": "v1", "served": True, "storage": True, **version}
    row["schema"] = {"openAPIV3Schema": schema or {"type": "object"}}
    wanted = {"plural": "gadgets", "kind": "Gadget", **(names or {})}
    return {
        "metadata": {"name": f"{wanted['plural']}.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": wanted, "versions": [row]},
    }


def _refusal(api: Any, crd: dict[str, Any]) -> list[tuple[str, str]]:
    with pytest.raises(Invalid) as refused:
        api.create("customresourcedefinitions", crd)
    return [(cause.field, cause.message) for cause in refused.value.causes]


def _spec(schema: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"spec": schema}}


def _rule(row: dict[str, Any], schema: Any = None) -> dict[str, Any]:
    inner = schema or {"type": "object", "properties": {"n": {"type": "integer"}}}
    return _spec({**inner, "x-kubernetes-validations": [row]})


def _go(rule: str) -> str:
    return (
        f'apiextensions.ValidationRule{{Rule:"{rule}", Message:"", MessageExpression:"", '
        'Reason:(*apiextensions.FieldValueErrorReason)(nil), FieldPath:"", OptionalOldSelf:(*bool)(nil)}'
    )


@pytest.mark.parametrize(
    ("schema", "field", "message"),
    [
        (_spec({}), f"{ROOT}.type", "Required value: must not be empty for specified object fields"),
        (_spec({"type": "array"}), f"{ROOT}.items", "Required value: must be specified"),
        (_spec({"type": "array", "items": {}}), f"{ROOT}.items.type",
         "Required value: must not be empty for specified array items"),
        ({"properties": {}}, f"{SCHEMA}.type", "Required value: must not be empty at the root"),
        ({"type": "array", "items": STRING}, f"{SCHEMA}.type", 'Invalid value: "array": must be object at the root'),
        ({"type": "object", "additionalProperties": STRING}, f"{SCHEMA}.additionalProperties",
         "Forbidden: must not be used at the root"),
        ({"type": "object", "nullable": True}, f"{SCHEMA}.nullable", "Forbidden: nullable cannot be true at the root"),
        ({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": STRING}}}},
         f"{SCHEMA}.properties[metadata]",
         "Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified"),
        (_spec({"type": "string", "pattern": "a("}), f"{ROOT}.pattern", "must be a valid regular expression"),
        (_spec({"type": "text"}), f"{ROOT}.type",
         'Unsupported value: "text": supported values: "array", "boolean", "integer", "number", "object", "string"'),
        (_spec({"type": "object", "properties": {"a": STRING}, "additionalProperties": STRING}),
         f"{ROOT}.additionalProperties", "Forbidden: additionalProperties and properties are mutual exclusive"),
        (_spec({"type": "array", "items": STRING, "uniqueItems": True}), f"{ROOT}.uniqueItems",
         "Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic"),
        (_spec({"type": "object", "x-kubernetes-preserve-unknown-fields": False}),
         f"{ROOT}.x-kubernetes-preserve-unknown-fields", "Invalid value: false: must be true or undefined"),
        (_spec({"type": "object", "x-kubernetes-embedded-resource": True}), f"{ROOT}.properties",
         "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields"),
        (_spec({"x-kubernetes-int-or-string": True, "x-kubernetes-preserve-unknown-fields": True}),
         f"{ROOT}.x-kubernetes-preserve-unknown-fields", "must be false if x-kubernetes-int-or-string is true"),
        (_spec({"type": "object", "anyOf": [{"type": "object"}]}), f"{ROOT}.anyOf[0].type",
         "Forbidden: must be empty to be structural"),
        (_spec({"type": "object", "not": {"properties": {"a": {"minLength": 1}}}}), f"{ROOT}.properties[a]",
         f"Required value: because it is defined in {ROOT}.not.properties[a]"),
        (_spec({**STRING, "x-kubernetes-list-type": "set"}), f"{ROOT}.type",
         'Invalid value: "string": must be array if x-kubernetes-list-type is specified'),
        (_spec({"type": "array", "items": STRING, "x-kubernetes-list-type": "bag"}), f"{ROOT}.x-kubernetes-list-type",
         'Unsupported value: "bag": supported values: "atomic", "map", "set"'),
        (_spec({"type": "array", "items": STRING, "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["a"]}), f"{ROOT}.items.type",
         "must be object if parent array's x-kubernetes-list-type is map"),
        (_spec({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "map"}),
         f"{ROOT}.x-kubernetes-list-map-keys", "must not be empty if x-kubernetes-list-type is map"),
        (_spec({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "set"}),
         f"{ROOT}.items.x-kubernetes-map-type", "must be atomic as item of a list with x-kubernetes-list-type=set"),
        (_spec({"type": "object", "x-kubernetes-map-type": "loose"}), f"{ROOT}.x-kubernetes-map-type",
         'Unsupported value: "loose": supported values: "atomic", "granular"'),
        (_spec({"type": "object", "default": {"b": 1}, "properties": {"a": STRING}}), f"{ROOT}.default",
         'Invalid value: {"b":1}: must not have unknown fields'),
        (_spec({"type": "integer", "default": "x"}), f"{ROOT}.default",
         'Invalid value: "string":  in body must be of type integer: "string"'),
        (_spec({"type": "object", "default": {"n": [3]}, "properties": {"n": {"type": "array", "maxItems": 2, "items": {
            "type": "integer", "x-kubernetes-validations": [{"rule": "self < 3"}]}}}}), f"{ROOT}.default.n[0]",
         "Invalid value: 3: failed rule: self < 3"),
        (_spec({"type": "string", "maxLength": 5, "default": "b", "x-kubernetes-validations": [
            {"rule": "oldSelf.hasValue() || self == 'a'", "optionalOldSelf": True}]}), f"{ROOT}.default",
         'Invalid value: "b": failed rule: '),
        (_rule({"rule": "self.x > 1"}), f"{ROOT}.x-kubernetes-validations[0].rule",
         f"Invalid value: {_go('self.x > 1')}: compilation failed: "
         "ERROR: <input>:1:5: undefined field 'x'\n | self.x > 1\n | ....^"),
        (_rule({"rule": "self.n"}), f"{ROOT}.x-kubernetes-validations[0].rule",
         f"Invalid value: {_go('self.n')}: cel expression must evaluate to a bool"),
        (_rule({"rule": " "}), f"{ROOT}.x-kubernetes-validations[0].rule", "Required value: rule is not specified"),
        (_rule({"rule": "self.n > 1", "message": " "}), f"{ROOT}.x-kubernetes-validations[0].message",
         'Invalid value: " ": must be non-empty if specified'),
        (_rule({"rule": "self.n >\n1"}), f"{ROOT}.x-kubernetes-validations[0].message",
         "Required value: message must be specified if rule contains line breaks"),
        (_rule({"rule": "self.n > 1", "reason": "Why"}), f"{ROOT}.x-kubernetes-validations[0].reason",
         'Unsupported value: "Why": supported values: "FieldValueDuplicate", "FieldValueForbidden", '
         '"FieldValueInvalid", "FieldValueRequired"'),
        (_rule({"rule": "self.n > 1", "fieldPath": ".m"}), f"{ROOT}.x-kubernetes-validations[0].fieldPath",
         'Invalid value: ".m": must be a valid path'),
        (_rule({"rule": "self.n > 1", "messageExpression": "self.n"}),
         f"{ROOT}.x-kubernetes-validations[0].messageExpression", "messageExpression must evaluate to a string"),
        (_rule({"rule": "self.n > 1", "optionalOldSelf": True}), f"{ROOT}.x-kubernetes-validations[0].optionalOldSelf",
         "Invalid value: true: may not be set if oldSelf is not used in rule"),
        (_spec({"type": "array", "maxItems": 3, "items": {**STRING, "x-kubernetes-validations": [
            {"rule": "self == oldSelf"}]}}), f"{ROOT}.items.x-kubernetes-validations[0].rule",
         f"oldSelf cannot be used on the uncorrelatable portion of the schema within {ROOT}"),
        (_spec({"type": "array", "items": STRING, "x-kubernetes-validations": [
            {"rule": "self.all(a, self.exists(b, a == b))"}]}), f"{ROOT}.x-kubernetes-validations[0].rule",
         "Forbidden: estimated rule cost exceeds budget by factor of more than 100x (try simplifying the rule, or "
         "adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"),
    ],
)  # fmt: skip
def test_a_broken_schema_is_refused(api: Any, schema: Any, field: str, message: str) -> None:
    found = dict(reversed(_refusal(api, _crd(schema))))
    assert field in found
    assert message in found[field]


@pytest.mark.parametrize(
    "schema",
    [
        _spec({"type": "array", "maxItems": 10, "items": {**STRING, "maxLength": 9}, "x-kubernetes-validations": [
            {"rule": "self.all(a, self.exists(b, a == b))"}]}),
        _spec({"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}),
        _spec({"type": "object", "properties": {"a": STRING}, "anyOf": [{"required": ["a"]}]}),
        _spec({"type": "object", "x-kubernetes-preserve-unknown-fields": True, "x-kubernetes-embedded-resource": True}),
        {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    ],
)  # fmt: skip
def test_a_good_schema_is_taken(api: Any, schema: Any) -> None:
    api.create("customresourcedefinitions", _crd(schema))


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"additionalPrinterColumns": [{"name": "A", "type": "text", "jsonPath": ".a"}]},
         "spec.additionalPrinterColumns[0].type", "must be one of boolean,date,integer,number,string"),
        ({"additionalPrinterColumns": [{"name": "A", "type": "string", "jsonPath": "a"}]},
         "spec.additionalPrinterColumns[0].JSONPath", "must be a simple json path starting with ."),
        ({"subresources": {"scale": {"specReplicasPath": ".n", "statusReplicasPath": ".status.n"}}},
         "spec.subresources.scale.specReplicasPath", "should be a json path under .spec"),
        ({"deprecationWarning": "old"}, "spec.versions[0].deprecationWarning",
         "can only be set for deprecated versions"),
        ({"selectableFields": [{"jsonPath": ".spec.no"}]}, "spec.selectableFields[0].jsonPath",
         'Invalid value: ".spec.no": is an invalid path: does not refer to a valid field'),
        ({"selectableFields": [{"jsonPath": ".spec"}]}, "spec.selectableFields[0].jsonPath",
         "must point to a field of type string, boolean or integer"),
        ({"selectableFields": [{"jsonPath": ".spec.a"}, {"jsonPath": ".spec.a"}]}, "spec.selectableFields[1].jsonPath",
         'Duplicate value: ".spec.a"'),
    ],
)  # fmt: skip
def test_a_broken_version_is_refused(api: Any, change: Any, field: str, message: str) -> None:
    schema = _spec({"type": "object", "properties": {"a": STRING}})
    found = dict(_refusal(api, _crd(schema, **change)))
    assert message in found[field]


def test_what_versions_do_not_share_is_refused_where_it_stands(api: Any) -> None:
    crd = _crd()
    crd["spec"]["versions"].append(
        {"name": "v2", "served": True, "storage": False, "schema": {"openAPIV3Schema": _spec({})}}
    )
    assert _refusal(api, crd)[0][0] == "spec.versions[1].schema.openAPIV3Schema.properties[spec].type"


def _webhook(**config: Any) -> dict[str, Any]:
    return {"strategy": "Webhook", "webhook": {"clientConfig": config, "conversionReviewVersions": ["v1"]}}


@pytest.mark.parametrize(
    ("conversion", "field", "message"),
    [
        ({"strategy": "Magic"}, "spec.conversion.strategy",
         'Unsupported value: "Magic": supported values: "None", "Webhook"'),
        ({"strategy": "Webhook"}, "spec.conversion.webhookClientConfig",
         "Required value: required when strategy is set to Webhook"),
        (_webhook(), "spec.conversion.webhookClientConfig",
         "Required value: exactly one of url or service is required"),
        (_webhook(url="http://a/"), "spec.conversion.webhookClientConfig.url",
         "Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]"),
        (_webhook(service={"name": "a"}), "spec.conversion.webhookClientConfig.service.namespace",
         "Required value: service namespace is required"),
        ({"strategy": "None", "webhook": {"clientConfig": {"url": "https://a/"}, "conversionReviewVersions": ["v1"]}},
         "spec.conversion.webhookClientConfig", "Forbidden: should not be set when strategy is not set to Webhook"),
        ({"strategy": "Webhook", "webhook": {"clientConfig": {"url": "https://a/"},
                                             "conversionReviewVersions": ["v7"]}},
         "spec.conversion.conversionReviewVersions", "must include at least one of v1, v1beta1"),
    ],
)  # fmt: skip
def test_a_broken_conversion_is_refused(api: Any, conversion: Any, field: str, message: str) -> None:
    crd = _crd()
    crd["spec"]["conversion"] = conversion
    assert message in dict(_refusal(api, crd))[field]


def test_groups_of_the_community_need_approval(api: Any) -> None:
    crd = _crd()
    crd["spec"]["group"], crd["metadata"]["name"] = "things.k8s.io", "gadgets.things.k8s.io"
    field = "metadata.annotations[api-approved.kubernetes.io]"
    assert "protected groups must have approval annotation" in dict(_refusal(api, crd))[field]
    crd["metadata"]["annotations"] = {"api-approved.kubernetes.io": "unapproved, for a test"}
    found = condition(api.create("customresourcedefinitions", crd), "KubernetesAPIApprovalPolicyConformant")
    assert found is not None
    assert (found["status"], found["reason"]) == ("False", "UnapprovedAnnotation")


@pytest.mark.parametrize(
    ("names", "reason", "message"),
    [
        ({"plural": "widgets", "kind": "Gadget", "listKind": "Gadgets"}, "KindConflict", '"Gadget" is already in use'),
        ({"plural": "widgets", "kind": "W", "singular": "gadget"}, "SingularConflict", '"gadget" is already in use'),
        ({"plural": "widgets", "kind": "W", "shortNames": ["w", "gadgets"]}, "ShortNamesConflict",
         '"gadgets" is already in use'),
        ({"plural": "widgets", "kind": "W", "listKind": "GadgetList"}, "ListKindConflict",
         '"GadgetList" is already in use'),
    ],
)  # fmt: skip
def test_names_in_use_are_not_accepted(api: Any, names: Any, reason: str, message: str) -> None:
    api.create("customresourcedefinitions", _crd())
    found = api.create("customresourcedefinitions", _crd(names=names))
    accepted, established = condition(found, "NamesAccepted"), condition(found, "Established")
    assert accepted is not None and established is not None
    assert (accepted["status"], accepted["reason"], accepted["message"]) == ("False", reason, message)
    assert (established["status"], established["reason"]) == ("False", "NotAccepted")
    assert found["status"]["acceptedNames"]["plural"] == "widgets"


def test_a_version_that_is_stored_stays(api: Any) -> None:
    crd = api.create("customresourcedefinitions", _crd())
    crd["spec"]["versions"].append({**crd["spec"]["versions"][0], "name": "v2"})
    crd["spec"]["versions"][0]["storage"] = False
    updated = api.update("customresourcedefinitions", crd)
    assert updated["status"]["storedVersions"] == ["v1", "v2"]
    updated["spec"]["versions"] = updated["spec"]["versions"][1:]
    with pytest.raises(
        Invalid, match=r'storedVersions\[0\]: Invalid value: "v1": missing from spec.versions; v1 was pre'
    ):
        api.update("customresourcedefinitions", updated)


def test_a_bundle_may_be_wrong_until_it_was_right(api: Any) -> None:
    right = base64.b64encode(b"-----BEGIN CERTIFICATE-----").decode()

    def bundle(text: str) -> Any:
        return {"spec": {"conversion": _webhook(url="https://a/", caBundle=text)}}

    crd = _crd()
    api.create("customresourcedefinitions", {**crd, "spec": {**crd["spec"], **bundle("Cg==")["spec"]}})
    api.patch("customresourcedefinitions", "gadgets.example.com", bundle("eA=="))
    api.patch("customresourcedefinitions", "gadgets.example.com", bundle(right))
    with pytest.raises(Invalid, match=r"webhookClientConfig.caBundle: Invalid value.*unable to load root certificates"):
        api.patch("customresourcedefinitions", "gadgets.example.com", bundle("eA=="))


def test_a_deleted_definition_waits_for_its_objects(api: Any) -> None:
    api.create("customresourcedefinitions", _crd())
    deletion = api.delete("customresourcedefinitions", "gadgets.example.com")
    assert not deletion.remove
    assert deletion.obj["metadata"]["finalizers"] == ["customresourcecleanup.apiextensions.k8s.io"]
    found = condition(deletion.obj, "Terminating")
    assert found is not None
    assert (found["status"], found["reason"]) == ("True", "InstanceDeletionPending")
