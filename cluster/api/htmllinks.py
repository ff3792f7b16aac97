"""Rewrites the links of an HTML page as it passes by, and leaves every other byte as it is.

Only start tags are looked at; comments and the insides of scripts and styles are not, and a tag that does not end
within `TAG_BYTES_MAX` passes unchanged.

Source: https://html.spec.whatwg.org/multipage/parsing.html#tokenization; which attributes hold links as of
k8s.io/apimachinery/pkg/util/proxy/transport.go
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable

TAG_BYTES_MAX = 64 * 1024

_ATTRIBUTES: dict[str, frozenset[str]] = {
    tag: frozenset(names.split())
    for tag, names in (
        ("a", "href"), ("applet", "codebase"), ("area", "href"), ("audio", "src"), ("base", "href"),
        ("blockquote", "cite"), ("body", "background"), ("button", "formaction"), ("command", "icon"), ("del", "cite"),
        ("embed", "src"), ("form", "action"), ("frame", "longdesc src"), ("head", "profile"), ("html", "manifest"),
        ("iframe", "longdesc src"), ("img", "longdesc src usemap"), ("input", "src usemap formaction"),
        ("ins", "cite"), ("link", "href"), ("object", "classid codebase data usemap"), ("q", "cite"),
        ("script", "src"), ("source", "src"), ("video", "poster src"),
    )
}  # fmt: skip
#: elements whose text holds no tags but their own end
_RAW = frozenset({"script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes"})
_MARKUP = re.compile(rb"<(?:!--|[a-zA-Z])")
_TAG = re.compile(rb"""<([a-zA-Z][^\s/>]*)(?:[^>"']|"[^"]*"|'[^']*')*>""")
_ATTRIBUTE = re.compile(rb"""([^\s"'<>/=]+)(\s*=\s*)("[^"]*"|'[^']*'|[^\s"'>][^\s>]*)""")
_COMMENT_END = re.compile(rb"-->")
#: more than the longest end of a text that is passed on unread
_TAIL = 16


class LinkRewriter:
    """Takes a page in pieces. Args: rewrite: returns what a link becomes."""

    def __init__(self, rewrite: Callable[[str], str]) -> None:
        self._rewrite = rewrite
        self._held = b""
        #: what ends the text that is passed on unread
        self._until: re.Pattern[bytes] | None = None

    def feed(self, data: bytes) -> bytes:
        """Returns what can be sent on."""
        self._held += data
        out: list[bytes] = []
        while self._held:
            piece = self._markup() if self._until is None else self._text(self._until)
            if piece is None:
                break
            out.append(piece)
        if len(self._held) > TAG_BYTES_MAX:
            out.append(self.end())
        return b"".join(out)

    def end(self) -> bytes:
        """Returns what is left."""
        return self._take(len(self._held))

    def _take(self, count: int) -> bytes:
        taken, self._held = self._held[:count], self._held[count:]
        return taken

    def _text(self, until: re.Pattern[bytes]) -> bytes | None:
        """Passes on what is not looked at; None when more has to come."""
        found = until.search(self._held)
        if found is not None:
            self._until = None
            return self._take(found.end())
        count = len(self._held) - _TAIL
        return self._take(count) if count > 0 else None

    def _markup(self) -> bytes | None:
        """Passes on text up to a tag, or a tag; None when more has to come."""
        found = _MARKUP.search(self._held)
        if found is None:
            last = self._held.rfind(b"<", -3)
            return self._take(last if last > 0 else len(self._held)) if last else None
        if found.start():
            return self._take(found.start())
        if found[0] == b"<!--":
            self._until = _COMMENT_END
            return self._take(found.end())
        tag = _TAG.match(self._held)
        if tag is None:
            return None
        name = tag[1].decode("latin-1").lower()
        if name in _RAW:
            self._until = re.compile(b"</" + re.escape(name.encode()), re.IGNORECASE)
        return self._rewritten(self._take(tag.end()), _ATTRIBUTES.get(name, frozenset()))

    def _rewritten(self, tag: bytes, names: frozenset[str]) -> bytes:
        def change(found: re.Match[bytes]) -> bytes:
            if found[1].decode("latin-1").lower() not in names:
                return found[0]
            quoted = found[3][:1] in (b'"', b"'")
            text = html.unescape((found[3][1:-1] if quoted else found[3]).decode("utf-8", "surrogateescape"))
            link = self._rewrite(text)
            if link == text:
                return found[0]
            return found[1] + found[2] + b'"' + html.escape(link).encode("utf-8", "surrogateescape") + b'"'

        return _ATTRIBUTE.sub(change, tag) if names else tag
