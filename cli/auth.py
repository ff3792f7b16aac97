"""`steer auth`: what may I do, and who am I."""

from __future__ import annotations

from collections.abc import Mapping

import click

from steersman.cli.errors import Failed, failed
from steersman.cli.output import parse_format, print_object, print_table
from steersman.cli.session import ExampleGroup, Session, api_command
from steersman.cluster.meta.objects import Obj

_REVIEWS = "/apis/authorization.k8s.io/v1"
_SELF = "/apis/authentication.k8s.io/v1/selfsubjectreviews"

auth = ExampleGroup(
    "auth",
    help="Ask what you may do, and who you are.",
    examples="""
    steer auth can-i create deployments
    steer auth can-i get pods/log -n shop
    steer auth can-i --list
    steer auth whoami
    """,
)


@api_command(
    "can-i",
    group=auth,
    examples="""
    steer auth can-i create deployments -n shop
    steer auth can-i '*' '*' -A
    steer auth can-i list secrets --as jane --as-group devs
    """,
)
@click.argument("verb", required=False)
@click.argument("resource", required=False, metavar="TYPE[/NAME]|URL")
@click.argument("name", required=False)
@click.option("--list", "listing", is_flag=True, help="List everything that is allowed.")
@click.option("--subresource", default="", metavar="NAME", help="As log or exec.")
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="In all namespaces.")
@click.option("--as", "user", default="", metavar="USER", help="Ask for somebody else.")
@click.option("--as-group", "groups", multiple=True, metavar="GROUP", help="Of that user; may be repeated.")
@click.option("-q", "--quiet", is_flag=True, help="The exit code alone tells.")
@click.option("--no-headers", is_flag=True, help="Leave the heading out.")
async def can_i(
    session: Session,
    verb: str | None,
    resource: str | None,
    name: str | None,
    listing: bool,
    subresource: str,
    everywhere: bool,
    user: str,
    groups: tuple[str, ...],
    quiet: bool,
    no_headers: bool,
) -> None:
    """Tell whether an action is allowed: yes with exit code 0, or no with exit code 1."""
    if groups and not user:
        raise failed("--as-group says more about the user of --as: give that as well")
    others = {"impersonate-user": user, "impersonate-group": "\n".join(groups)}
    whose = {key: value for key, value in others.items() if value}
    if listing:
        await _list(session, whose, no_headers)
        return
    if not verb or not resource:
        raise failed("you must specify two arguments: verb and resource, or --list")
    spec = await _attributes(session, verb, resource, name, subresource, everywhere)
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec}
    answer = await session.post(f"{_REVIEWS}/selfsubjectaccessreviews", review, whose)
    status = answer.get("status") or {}
    allowed = bool(status.get("allowed"))
    if not quiet:
        reason = f" - {status['reason']}" if status.get("reason") and not allowed else ""
        click.echo(f"{'yes' if allowed else 'no'}{reason}")
    if not allowed:
        raise Failed("")


async def _attributes(
    session: Session, verb: str, resource: str, name: str | None, subresource: str, everywhere: bool
) -> Obj:
    if resource.startswith("/"):
        return {"nonResourceAttributes": {"path": resource, "verb": verb}}
    word, slash, rest = resource.partition("/")
    found: Obj = {"verb": verb}
    if word == "*":
        found |= {"group": "*", "resource": "*"}
        namespaced = True
    else:
        kind = (await session.kinds()).find(word)
        found |= {"group": kind.resource.group, "version": kind.resource.version, "resource": kind.resource.plural}
        namespaced = kind.resource.namespaced
        if slash and rest in kind.subresources:
            subresource, rest = rest, ""
    if subresource:
        found["subresource"] = subresource
    if name or rest:
        found["name"] = name or rest
    if namespaced and not everywhere:
        found["namespace"] = session.namespace
    return {"resourceAttributes": found}


async def _list(session: Session, whose: Mapping[str, str], no_headers: bool) -> None:
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": session.namespace},
    }
    status = (await session.post(f"{_REVIEWS}/selfsubjectrulesreviews", review, whose)).get("status") or {}
    rows = []
    for rule in status.get("resourceRules") or ():
        groups = rule.get("apiGroups") or [""]
        for plural in rule.get("resources") or ():
            for group in groups:
                rows.append(
                    [f"{plural}.{group}" if group else plural, [], rule.get("resourceNames") or [], rule["verbs"]]
                )
    for rule in status.get("nonResourceRules") or ():
        rows.append(["", rule.get("nonResourceURLs") or [], [], rule["verbs"]])
    texts = [[row[0], *(f"[{' '.join(cell)}]" for cell in row[1:])] for row in rows]
    headings = ["RESOURCES", "NON-RESOURCE URLS", "RESOURCE NAMES", "VERBS"]
    print_table(headings, sorted(texts), no_headers=no_headers)


@api_command("whoami", group=auth, examples="steer auth whoami -o json")
@click.option("-o", "--output", metavar="FORM", help="json or yaml.")
async def whoami(session: Session, output: str | None) -> None:
    """Tell as whom the server knows you."""
    form = parse_format(output)
    answer = await session.post(_SELF, {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"})
    if not form.is_table:
        print_object(answer, form, lambda _: "selfsubjectreview")
        return
    user = (answer.get("status") or {}).get("userInfo") or {}
    rows = [["Username", user.get("username", "")]]
    if user.get("uid"):
        rows.append(["UID", user["uid"]])
    rows.append(["Groups", f"[{' '.join(user.get('groups') or ())}]"])
    print_table(["ATTRIBUTE", "VALUE"], rows)


COMMANDS = [auth]
