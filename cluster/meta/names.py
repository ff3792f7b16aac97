"""Rules of names, labels and annotations, with the sentences Kubernetes answers when one is broken.

Source: k8s.io/apimachinery/pkg/util/validation
"""

from __future__ import annotations

import hashlib
import re

_LABEL = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
_LABEL_1035 = re.compile(r"^[a-z]([-a-z0-9]*[a-z0-9])?\Z")
_SUBDOMAIN = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_QUALIFIED = re.compile(r"^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]\Z")
_LABEL_VALUE = re.compile(r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?\Z")

#: letters that cannot spell words or be mistaken for one another (Kubernetes' `rand.String`)
SAFE_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def label_1123_errors(name: str) -> list[str]:
    """What breaks the rule of an RFC 1123 label (namespaces, containers); empty when nothing does."""
    errors = []
    if len(name) > 63:
        errors.append("must be no more than 63 characters")
    if _SUBDOMAIN.match(name) and "." in name:
        errors.append("must not contain dots")
    elif not _LABEL.match(name):
        errors.append(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start "
            "and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
            "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
        )
    return errors


def label_1035_errors(name: str) -> list[str]:
    """What breaks the rule of an RFC 1035 label (services); empty when nothing does."""
    errors = []
    if len(name) > 63:
        errors.append("must be no more than 63 characters")
    if not _LABEL_1035.match(name):
        errors.append(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
            "character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for "
            "validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
        )
    return errors


def subdomain_errors(name: str) -> list[str]:
    """What breaks the rule of an RFC 1123 subdomain (most object names); empty when nothing does."""
    errors = []
    if len(name) > 253:
        errors.append("must be no more than 253 characters")
    if not _SUBDOMAIN.match(name):
        errors.append(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
            "start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
            "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
        )
    return errors


def path_segment_errors(name: str) -> list[str]:
    """What makes a name unfit for a URL path (RBAC objects); empty when nothing does."""
    if name in (".", ".."):
        return [f"may not be '{name}'"]
    return [f"may not contain '{char}'" for char in "/%" if char in name]


_KEY_RULE = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
    "(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)


def qualified_name_errors(name: str) -> list[str]:
    """What breaks the rule of a label key (`[prefix/]name`); empty when nothing does."""
    prefix, slash, rest = name.rpartition("/")
    if "/" in prefix:
        return [
            f"a valid label key {_KEY_RULE} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        ]
    errors = []
    if slash:
        if not prefix:
            errors.append("prefix part must be non-empty")
        else:
            errors += [f"prefix part {error}" for error in _prefix_errors(prefix)]
    if not rest:
        errors.append("name part must be non-empty")
    elif len(rest) > 63:
        errors.append("name part must be no more than 63 bytes")
    if not _QUALIFIED.match(rest):
        errors.append(f"name part {_KEY_RULE}")
    return errors


def _prefix_errors(prefix: str) -> list[str]:
    return [error.replace("253 characters", "253 bytes") for error in subdomain_errors(prefix)]


def label_value_errors(value: str) -> list[str]:
    """What breaks the rule of a label value; empty when nothing does."""
    errors = []
    if len(value) > 63:
        errors.append("must be no more than 63 bytes")
    if not _LABEL_VALUE.match(value):
        errors.append(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
            "start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used "
            "for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
        )
    return errors


def safe_encode(text: str) -> str:
    """Returns the text with every character mapped into the safe alphabet (Kubernetes' `SafeEncodeString`)."""
    return "".join(SAFE_ALPHABET[ord(char) % len(SAFE_ALPHABET)] for char in text)


def stable_hash(text: str, length: int = 10) -> str:
    """Returns a short name part derived from `text` alone, the same on every run and machine."""
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")
    chars = []
    for _ in range(length):
        number, index = divmod(number, len(SAFE_ALPHABET))
        chars.append(SAFE_ALPHABET[index])
    return "".join(chars)


def generated_name(prefix: str, suffix: str) -> str:
    """Returns `prefix + suffix`, the prefix cut so that the whole stays within 63 characters."""
    return prefix[: 63 - len(suffix)] + suffix
