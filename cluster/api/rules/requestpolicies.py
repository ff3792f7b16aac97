"""Rules of how much of a device's capacity may be asked for.

Source: k8s.io/kubernetes/pkg/apis/resource/validation/validation.go
"""

from __future__ import annotations

from steersman.cluster.api.rules.devicefields import set_of
from steersman.cluster.api.rules.fields import bad, forbidden, required
from steersman.cluster.meta import quantity
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.objects import Obj

_VALUES_MAX = 10
_ONE_POLICY = 'exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time'


def validate_request_policy(path: str, policy: Obj, capacity: str) -> list[Cause]:
    """The rules of what may be asked of a capacity: some amounts, or a range in steps, the default among them."""
    values, found = policy.get("validValues") or [], policy.get("validRange")
    if values and found is not None:
        return [forbidden(path, _ONE_POLICY)]
    default = policy.get("default")
    for key, said in (("validValues", bool(values)), ("validRange", found is not None)):
        if said and default is None:
            return [required(f"{path}.default", f"required when {key} is defined")]
    if values:
        return _values(f"{path}.validValues", values, default or "0", capacity)
    return [] if found is None else _range(f"{path}.validRange", found, default or "0", capacity)


def _values(path: str, values: list[str], default: str, capacity: str) -> list[Cause]:
    amounts = [quantity.parse(value) for value in values]
    causes = [
        bad(f"{path}[{index}]", values[index], "values must be sorted in ascending order")
        for index in range(1, len(values))
        if amounts[index - 1] > amounts[index]
    ]

    def option(where: str, value: str) -> list[Cause]:
        is_larger = quantity.parse(value) > quantity.parse(capacity)
        return [bad(where, value, f"option is larger than capacity value: {capacity}")] if is_larger else []

    causes += set_of(path, values, _VALUES_MAX, option, lambda value: str(quantity.whole(value)))
    if quantity.parse(default) not in amounts:
        causes.append(bad(path, default, "default value is not valid according to the requestPolicy"))
    return causes


def _range(path: str, row: Obj, default: str, capacity: str) -> list[Cause]:
    least, most, step = (row.get(key) for key in ("min", "max", "step"))
    if least is None:
        return [required(f"{path}.min", "required when validRange is defined")]
    low, usual, whole = quantity.parse(least), quantity.parse(default), quantity.parse(capacity)
    causes: list[Cause] = []
    if low > whole:
        causes.append(bad(f"{path}.min", least, f"min is larger than capacity value: {capacity}"))
    if usual < low:
        causes.append(bad(f"{path}.default", default, f"default is less than min: {least}"))
    if most is not None:
        high = quantity.parse(most)
        if low > high:
            causes.append(bad(f"{path}.max", least, f"min is larger than max: {most}"))
        if high > whole:
            causes.append(bad(f"{path}.max", most, f"max is larger than capacity value: {capacity}"))
        if usual > high:
            causes.append(bad(f"{path}.default", default, f"default is more than max: {most}"))
    return causes + ([] if step is None else _step(f"{path}.step", row, default, capacity))


def _step(path: str, row: Obj, default: str, capacity: str) -> list[Cause]:
    least, most, step = row["min"], row.get("max"), row["step"]
    if quantity.parse(step) <= 0:
        return [bad(path, step, "must be greater than zero")]
    after = quantity.add(least, step)
    causes: list[Cause] = []
    if quantity.parse(after) > quantity.parse(capacity):
        causes.append(bad(path, step, f"one step {after} is larger than capacity value: {capacity}"))
    start, width = quantity.whole(least), quantity.whole(step)
    for value in (default, most):
        if value is not None and (quantity.whole(value) - start) % width:
            detail = f"value is not a multiple of a given step ({step}) from ({least})"
            causes.append(bad(path, value, detail))
    return causes
