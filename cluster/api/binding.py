"""A Binding: the scheduler's word that a pod runs on a node, as a change of that pod.

Source: k8s.io/kubernetes/pkg/registry/core/pod/storage/storage.go (BindingREST)
"""

from __future__ import annotations

from steersman.cluster.api.context import WriteContext, Written
from steersman.cluster.api.rules.fields import required, unsupported
from steersman.cluster.meta import errors
from steersman.cluster.meta.objects import Obj, is_deleting, with_condition


def bind(pod: Obj, binding: Obj, ctx: WriteContext) -> Written:
    """Returns the pod as bound.

    Raises:
        Invalid: no node is named. Conflict: the pod is another one, is bound, gated or being deleted.
    """
    target, asked, meta = binding.get("target") or {}, binding.get("metadata") or {}, pod["metadata"]
    causes = []
    if target.get("kind") not in (None, "", "Node"):
        causes.append(unsupported("target.kind", target["kind"], ("Node", "<empty>")))
    if not target.get("name"):
        causes.append(required("target.name"))
    if causes:
        raise errors.invalid("Binding", meta["name"], causes)
    node = target["name"]
    for key, title in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
        if asked.get(key) and asked[key] != meta.get(key):
            detail = (
                f"Precondition failed: {title} in precondition: {asked[key]}, {title} in object meta: {meta.get(key)}"
            )
            raise _conflict(pod, detail)
    if is_deleting(pod):
        raise _conflict(pod, f"pod {meta['name']} is being deleted, cannot be assigned to a host")
    if pod["spec"].get("nodeName"):
        raise _conflict(pod, f'pod {meta["name"]} is already assigned to node "{pod["spec"]["nodeName"]}"')
    if pod["spec"].get("schedulingGates"):
        raise _conflict(pod, f"pod {meta['name']} has non-empty .spec.schedulingGates")
    new_meta = dict(meta)
    for key in ("annotations", "labels"):
        if asked.get(key):
            new_meta[key] = {**(meta.get(key) or {}), **asked[key]}
    status = {key: value for key, value in (pod.get("status") or {}).items() if key != "nominatedNodeName"}
    status["conditions"] = with_condition(status.get("conditions") or [], "PodScheduled", "True", ctx.now)
    bound = {**pod, "metadata": new_meta, "spec": {**pod["spec"], "nodeName": node}, "status": status}
    return Written(obj=bound)


def _conflict(pod: Obj, detail: str) -> errors.Conflict:
    name = pod["metadata"]["name"]
    return errors.Conflict(
        f'Operation cannot be fulfilled on pods/binding "{name}": {detail}', kind="pods/binding", name=name
    )
