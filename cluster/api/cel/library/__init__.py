"""Every function that an expression may call, by its name and whether it is a method."""

from __future__ import annotations

from steersman.cluster.api.cel.library import (
    authorizer,
    collections,
    encoders,
    formats,
    jsonpatch,
    net,
    optionals,
    quantities,
    regex,
    semver,
    standard,
    strings,
    times,
    urls,
)  # fmt: skip
from steersman.cluster.api.cel.overload import by_name

FUNCTIONS = by_name(
    row
    for part in (
        standard, times, strings, regex, collections, optionals, encoders, quantities, urls, net, formats, semver,
        authorizer, jsonpatch,
    )
    for row in part.FUNCTIONS
)  # fmt: skip
