"""The strings extension: search, cut, case, `format`.

Source: github.com/google/cel-go/ext/strings.go, version 2
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from steersman.cluster.api.cel.errors import EvaluationError
from steersman.cluster.api.cel.library.standard import shown_double
from steersman.cluster.api.cel.overload import first_size, function, method, reads_text, searches
from steersman.cluster.api.cel.values import Duration, Timestamp, TypeValue, Uint, type_name

#: characters that quote() escapes
_QUOTED = {
    "\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v", "\\": r"\\", '"': r"\"",
}  # fmt: skip


def _char_at(text: str, index: int) -> str:
    if not 0 <= index <= len(text):
        raise EvaluationError(f"index out of range: {index}")
    return text[index : index + 1]


def _index_of(text: str, part: str, start: int = 0) -> int:
    if start < 0 or (start > len(text) and part):
        raise EvaluationError(f"index out of range: {start}")
    return min(start, len(text)) if not part else text.find(part, start)


def _last_index_of(text: str, part: str, start: int | None = None) -> int:
    if start is not None and not 0 <= start <= len(text):
        raise EvaluationError(f"index out of range: {start}")
    if not part:
        return len(text) if start is None else start
    return text.rfind(part) if start is None else text.rfind(part, 0, start + len(part))


def _substring(text: str, start: int, end: int | None = None) -> str:
    stop = len(text) if end is None else end
    if not 0 <= start <= len(text):
        raise EvaluationError(f"index out of range: {start}")
    if not 0 <= stop <= len(text):
        raise EvaluationError(f"index out of range: {stop}")
    if start > stop:
        raise EvaluationError(f"invalid substring range. start: {start}, end: {stop}")
    return text[start:stop]


def _replace(text: str, old: str, new: str, count: int = -1) -> str:
    return text.replace(old, new, count)


def _split(text: str, separator: str, count: int = -1) -> list[str]:
    if count == 0:
        return []
    if not separator:
        chars = list(text)
        return chars if count < 0 or count >= len(chars) else [*chars[: count - 1], "".join(chars[count - 1 :])]
    return text.split(separator, count - 1 if count > 0 else -1)


def _join(parts: list[Any], separator: str = "") -> str:
    if not all(isinstance(part, str) for part in parts):
        raise EvaluationError("no such overload")
    return separator.join(parts)


def _lower(text: str) -> str:
    return "".join(char.lower() if char.isascii() else char for char in text)


def _upper(text: str) -> str:
    return "".join(char.upper() if char.isascii() else char for char in text)


def _quote(text: str) -> str:
    return '"' + "".join(_QUOTED.get(char, char) for char in text) + '"'


# ---- format


def _format(template: str, args: list[Any]) -> str:
    out, at, used = [], 0, 0
    while at < len(template):
        char = template[at]
        at += 1
        if char != "%":
            out.append(char)
            continue
        if template[at : at + 1] == "%":
            out.append("%")
            at += 1
            continue
        precision = None
        if template[at : at + 1] == ".":
            end = at + 1
            while template[end : end + 1].isdigit():
                end += 1
            precision, at = int(template[at + 1 : end] or 0), end
        verb = template[at : at + 1]
        at += 1
        if used >= len(args):
            raise EvaluationError(f"index {used} out of range")
        out.append(_formatted(verb, args[used], precision))
        used += 1
    return "".join(out)


def _formatted(verb: str, value: Any, precision: int | None) -> str:
    integer = isinstance(value, int)
    match verb:
        case "s":
            return _shown(value)
        case "d" if integer and not isinstance(value, bool):
            return str(int(value))
        case "d" if isinstance(value, float) and not math.isfinite(value):
            return _special(value)
        case "f" | "e" if isinstance(value, (int, float)) and not isinstance(value, bool):
            return (
                _special(value)
                if not math.isfinite(value)
                else f"{float(value):.{6 if precision is None else precision}{verb}}"
            )
        case "b" if integer:
            return f"{int(value):b}"
        case "o" if integer and not isinstance(value, bool):
            return f"{int(value):o}"
        case "x" | "X" if isinstance(value, (int, str, bytes)) and not isinstance(value, bool):
            if isinstance(value, int):
                return f"{int(value):{verb}}"
            text = (value.encode() if isinstance(value, str) else value).hex()
            return text.upper() if verb == "X" else text
    names = {"d": "decimal", "f": "fixed-point", "e": "scientific", "b": "binary", "o": "octal", "x": "hex", "X": "hex"}
    if verb not in names:
        raise EvaluationError(f'could not parse formatting clause: unrecognized formatting clause "{verb}"')
    raise EvaluationError(f"error during formatting: {names[verb]} clause cannot be used on {type_name(value)}")


def _special(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _shown(value: Any) -> str:
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case None:
            return "null"
        case float():
            return shown_double(value) if math.isfinite(value) else _special(value)
        case bytes():
            return value.decode(errors="replace")
        case list():
            return f"[{', '.join(map(_shown, value))}]"
        case Mapping():
            rows = sorted((_shown(key), _shown(item)) for key, item in value.items())
            return "{" + ", ".join(f"{key}: {item}" for key, item in rows) + "}"
        case TypeValue():
            return value.name
        case int() | Uint() | Duration() | Timestamp():
            return str(value)
    raise EvaluationError(
        "error during formatting: string clause can only be used on strings, bools, bytes, ints, doubles, maps, "
        f"lists, types, durations, and timestamps, was given {type_name(value)}"
    )


FUNCTIONS = (
    method("charAt", "string, int -> string", _char_at, size=lambda _sizes: 1),
    method("indexOf", "string, string -> int", _index_of, searches),
    method("indexOf", "string, string, int -> int", _index_of, searches),
    method("lastIndexOf", "string, string -> int", _last_index_of, searches),
    method("lastIndexOf", "string, string, int -> int", _last_index_of, searches),
    method("substring", "string, int -> string", _substring, reads_text, first_size),
    method("substring", "string, int, int -> string", _substring, reads_text, first_size),
    method("replace", "string, string, string -> string", _replace, reads_text),
    method("replace", "string, string, string, int -> string", _replace, reads_text),
    method("split", "string, string -> list(string)", _split, reads_text, first_size),
    method("split", "string, string, int -> list(string)", _split, reads_text, first_size),
    method("join", "list(string) -> string", _join),
    method("join", "list(string), string -> string", _join),
    method("lowerAscii", "string -> string", _lower, reads_text, first_size),
    method("upperAscii", "string -> string", _upper, reads_text, first_size),
    method("trim", "string -> string", str.strip, reads_text, first_size),
    function("strings.quote", "string -> string", _quote, reads_text),
    method("format", "string, list(dyn) -> string", _format, reads_text),
)
