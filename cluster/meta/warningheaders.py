"""Which warnings an answer carries, and how: `Warning` headers grow no larger than clients read.

Source: k8s.io/apiserver/pkg/endpoints/filters/warning.go and NewWarningHeader of k8s.io/apimachinery/pkg/util/net
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

#: characters of all warnings of an answer; with more each is cut, and those beyond are left out
TOTAL_CHARS_MAX = 4096
#: characters of one warning where they are cut
ITEM_CHARS_MAX = 256


def headers(texts: Iterable[str]) -> list[str]:
    """Returns the values of the `Warning` headers for some texts; those with control characters have none."""
    fit = [text for text in dict.fromkeys(texts) if text and not any(unicodedata.category(c) == "Cc" for c in text)]
    if sum(map(len, fit)) > TOTAL_CHARS_MAX:
        cut, chars = [], 0
        for text in fit:
            if chars >= TOTAL_CHARS_MAX:
                break
            cut.append(text[:ITEM_CHARS_MAX])
            chars += len(cut[-1])
        fit = cut
    return [_header(text) for text in fit]


def _header(text: str) -> str:
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'299 - "{quoted}"'
