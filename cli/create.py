"""`steer create` and `steer run`: objects from manifests, or from a few flags."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import click

from steersman.cli import manifests
from steersman.cli.errors import failed
from steersman.cli.manifests import Manifest
from steersman.cli.objects import Located, for_each, report
from steersman.cli.options import COMMON, NAMES, settings
from steersman.cli.session import FIELD_MANAGER, ExampleGroup, Session, api_command, connect, perform
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    JOBS,
    NAMESPACES,
    PODS,
    SECRETS,
    SERVICE_ACCOUNTS,
    Resource,
)

_SHARED = (
    click.option("--dry-run", type=click.Choice(["none", "client", "server"]), default="none", help="Change nothing."),
    click.option("-o", "--output", metavar="FORM", help="Print the object: name, json, yaml."),
)


def _shared(function: Any) -> Any:
    for option in _SHARED:
        function = option(function)
    return function


def _from_files(**params: Any) -> None:
    """The group itself: `steer create -f FILE`."""
    ctx = click.get_current_context()
    chosen = settings(ctx, {key: params.pop(key) for key in NAMES})
    if ctx.invoked_subcommand is not None:
        if params["files"]:
            raise click.UsageError("-f cannot be combined with a kind")
        ctx.meta["steersman.common"] = {name: getattr(chosen, name) for name in NAMES}
        return
    if not params["files"]:
        raise click.UsageError("name manifests with -f, or a kind: steer create namespace NAME")
    make = (ctx.obj or {}).get("connect", connect)
    perform(make, chosen, lambda session: _create_files(session, **params))


async def _create_files(
    session: Session, files: tuple[str, ...], recursive: bool, dry_run: str, output: str | None
) -> None:
    async def one(where: Located, manifest: Manifest) -> None:
        if dry_run == "client":
            report(where, manifest.obj, "created", output, dry_run=dry_run)
            return
        made = await session.client.create(
            where.resource,
            manifest.obj,
            where.namespace,
            dry_run=dry_run == "server",
            field_manager=FIELD_MANAGER,
            field_validation="Strict",
        )
        named = Located(where.resource, where.namespace, made["metadata"]["name"])
        report(named, made, "created", output, dry_run=dry_run)

    await for_each(session, manifests.read(files, recursive=recursive), one)


create = ExampleGroup(
    "create",
    callback=_from_files,
    invoke_without_command=True,
    params=[
        click.Option(["-f", "--filename", "files"], multiple=True, metavar="FILE", help="File, directory or -."),
        click.Option(["-R", "--recursive"], is_flag=True, help="Read directories below the given ones too."),
        click.Option(["--dry-run"], type=click.Choice(["none", "client", "server"]), default="none"),
        click.Option(["-o", "--output"], metavar="FORM", help="Print the objects: name, json, yaml."),
        *(option() for option in COMMON),
    ],
    help="Create objects from manifests, or from flags. What exists already is an error.",
    examples="""
    steer create -f web.yaml
    steer create namespace shop
    steer create configmap settings --from-literal=level=debug --from-file=app.conf
    steer create secret generic login --from-literal=password=s3cret
    steer create deployment web --image=nginx:1.27 --replicas=3 --port=80
    steer create job once --image=busybox -- echo hello
    """,
)


async def _make(
    session: Session, resource: Resource, obj: Obj, dry_run: str, output: str | None, verb: str = "created"
) -> None:
    space = session.scope(resource)
    whole = {"apiVersion": resource.api_version, "kind": resource.kind, **obj}
    if space:
        whole["metadata"]["namespace"] = space
    if dry_run != "client":
        whole = await session.client.create(
            resource,
            whole,
            space,
            dry_run=dry_run == "server",
            field_manager=FIELD_MANAGER,
            field_validation="Strict",
        )
    report(Located(resource, space, whole["metadata"]["name"]), whole, verb, output, dry_run=dry_run)


@api_command("namespace", group=create, examples="steer create namespace shop")
@click.argument("name")
@_shared
async def namespace(session: Session, name: str, dry_run: str, output: str | None) -> None:
    """Create a namespace."""
    await _make(session, NAMESPACES, {"metadata": {"name": name}}, dry_run, output)


@api_command("serviceaccount", group=create, examples="steer create serviceaccount robot")
@click.argument("name")
@_shared
async def service_account(session: Session, name: str, dry_run: str, output: str | None) -> None:
    """Create a service account."""
    await _make(session, SERVICE_ACCOUNTS, {"metadata": {"name": name}}, dry_run, output)


def _data(literals: tuple[str, ...], files: tuple[str, ...], env_files: tuple[str, ...]) -> dict[str, bytes]:
    """Key to bytes of what the `--from-…` options name."""
    found: dict[str, bytes] = {}

    def put(key: str, value: bytes) -> None:
        if key in found:
            raise failed(f'cannot add key "{key}", another key by that name already exists')
        found[key] = value

    for literal in literals:
        key, equals, value = literal.partition("=")
        if not equals or not key:
            raise failed(f"invalid literal source {literal}, expected key=value")
        put(key, value.encode())
    try:
        for text in files:
            key, equals, path = text.rpartition("=")
            for file in sorted(Path(path).iterdir()) if Path(path).is_dir() else [Path(path)]:
                if file.is_file() or not Path(path).is_dir():
                    put(key if equals else file.name, file.read_bytes())
        for path in env_files:
            for line in Path(path).read_text().splitlines():
                key, equals, value = line.strip().partition("=")
                if key and not key.startswith("#"):
                    put(key, value.encode())
    except OSError as error:
        raise failed(f"cannot read {error.filename}: {error.strerror}") from None
    return found


def _sources(function: Any) -> Any:
    for name, text in (
        ("--from-literal", "A key and its value: KEY=VALUE."),
        ("--from-file", "A file or directory, with its name or KEY= as key."),
        ("--from-env-file", "A file of KEY=VALUE lines."),
    ):
        function = click.option(name, multiple=True, metavar="SOURCE", help=text)(function)
    return function


@api_command("configmap", group=create, examples="steer create configmap settings --from-literal=level=debug")
@click.argument("name")
@_sources
@_shared
async def config_map(
    session: Session,
    name: str,
    from_literal: tuple[str, ...],
    from_file: tuple[str, ...],
    from_env_file: tuple[str, ...],
    dry_run: str,
    output: str | None,
) -> None:
    """Create a config map from literals and files."""
    obj: Obj = {"metadata": {"name": name}}
    for key, value in _data(from_literal, from_file, from_env_file).items():
        try:
            obj.setdefault("data", {})[key] = value.decode()
        except UnicodeDecodeError:
            obj.setdefault("binaryData", {})[key] = base64.b64encode(value).decode()
    await _make(session, CONFIG_MAPS, obj, dry_run, output)


secret = ExampleGroup(
    "secret",
    help="Create a secret.",
    examples="""
    steer create secret generic login --from-literal=user=admin --from-file=password=./password.txt
    steer create secret tls site --cert=tls.crt --key=tls.key
    steer create secret docker-registry hub --docker-server=registry.example.com --docker-username=me
    """,
)
create.add_command(secret)


def _encoded(data: dict[str, bytes]) -> dict[str, str]:
    return {key: base64.b64encode(value).decode() for key, value in data.items()}


@api_command("generic", group=secret, examples="steer create secret generic login --from-literal=password=s3cret")
@click.argument("name")
@click.option("--type", "secret_type", default="Opaque", metavar="TYPE", help="Type of the secret.")
@_sources
@_shared
async def generic(
    session: Session,
    name: str,
    secret_type: str,
    from_literal: tuple[str, ...],
    from_file: tuple[str, ...],
    from_env_file: tuple[str, ...],
    dry_run: str,
    output: str | None,
) -> None:
    """Create a secret from literals and files."""
    data = _encoded(_data(from_literal, from_file, from_env_file))
    obj: Obj = {"metadata": {"name": name}, "type": secret_type, **({"data": data} if data else {})}
    await _make(session, SECRETS, obj, dry_run, output)


@api_command("tls", group=secret, examples="steer create secret tls site --cert=tls.crt --key=tls.key")
@click.argument("name")
@click.option("--cert", required=True, metavar="FILE", help="PEM certificate.")
@click.option("--key", required=True, metavar="FILE", help="PEM private key.")
@_shared
async def tls(session: Session, name: str, cert: str, key: str, dry_run: str, output: str | None) -> None:
    """Create a secret of a certificate and its key."""
    data = _encoded(_data((), (f"tls.crt={cert}", f"tls.key={key}"), ()))
    await _make(
        session, SECRETS, {"metadata": {"name": name}, "type": "kubernetes.io/tls", "data": data}, dry_run, output
    )


@api_command(
    "docker-registry",
    group=secret,
    examples="steer create secret docker-registry hub --docker-server=localhost:5000 --docker-username=me",
)
@click.argument("name")
@click.option("--docker-server", default="https://index.docker.io/v1/", metavar="HOST", help="Registry.")
@click.option("--docker-username", required=True, metavar="NAME", help="User name.")
@click.option("--docker-password", prompt=True, hide_input=True, metavar="TEXT", help="Password; asked for if missing.")
@click.option("--docker-email", default="", metavar="TEXT", help="E-mail address.")
@_shared
async def docker_registry(
    session: Session,
    name: str,
    docker_server: str,
    docker_username: str,
    docker_password: str,
    docker_email: str,
    dry_run: str,
    output: str | None,
) -> None:
    """Create a secret with which images are pulled."""
    login = {"username": docker_username, "password": docker_password}
    login["auth"] = base64.b64encode(f"{docker_username}:{docker_password}".encode()).decode()
    if docker_email:
        login["email"] = docker_email
    data = _encoded({".dockerconfigjson": json.dumps({"auths": {docker_server: login}}).encode()})
    obj = {"metadata": {"name": name}, "type": "kubernetes.io/dockerconfigjson", "data": data}
    await _make(session, SECRETS, obj, dry_run, output)


@api_command(
    "deployment", group=create, examples="steer create deployment web --image=nginx:1.27 --replicas=3 --port=80"
)
@click.argument("name")
@click.argument("command", nargs=-1, metavar="[-- COMMAND [ARG...]]")
@click.option("--image", "images", multiple=True, required=True, metavar="IMAGE", help="Image; repeat for more.")
@click.option("-r", "--replicas", default=1, metavar="N", help="Number of pods.")
@click.option("--port", type=int, metavar="PORT", help="Port that the container listens on.")
@_shared
async def deployment(
    session: Session,
    name: str,
    command: tuple[str, ...],
    images: tuple[str, ...],
    replicas: int,
    port: int | None,
    dry_run: str,
    output: str | None,
) -> None:
    """Create a deployment of an image."""
    labels = {"app": name}
    containers: list[Obj] = [{"name": _container_name(image), "image": image} for image in images]
    if port is not None:
        containers[0]["ports"] = [{"containerPort": port}]
    if command:
        containers[0]["command"] = list(command)
    obj = {
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
        },
    }
    await _make(session, DEPLOYMENTS, obj, dry_run, output)


def _container_name(image: str) -> str:
    """The last part of an image's name, as a container may be called."""
    base = image.rpartition("/")[2].partition("@")[0].partition(":")[0].lower()
    allowed = "".join(char if char.isalnum() else "-" for char in base).strip("-")
    return allowed[:63] or "main"


@api_command("job", group=create, examples="steer create job once --image=busybox -- echo hello")
@click.argument("name")
@click.argument("command", nargs=-1, metavar="[-- COMMAND [ARG...]]")
@click.option("--image", metavar="IMAGE", help="Image of the one container.")
@click.option("--from", "source", metavar="cronjob/NAME", help="Run the job of a cron job now.")
@_shared
async def job(
    session: Session,
    name: str,
    command: tuple[str, ...],
    image: str | None,
    source: str | None,
    dry_run: str,
    output: str | None,
) -> None:
    """Create a job that runs a command to its end."""
    if bool(image) == bool(source):
        raise failed("either --image or --from must be specified")
    obj: Obj = {"metadata": {"name": name}}
    if source:
        kind, of = (await session.kinds()).one([source])
        cron = await session.client.get(kind.resource, of, session.scope(kind.resource))
        template = cron["spec"]["jobTemplate"]
        annotations = {**(template.get("metadata") or {}).get("annotations", {})}
        obj["metadata"] |= {**(template.get("metadata") or {}), "name": name}
        obj["metadata"]["annotations"] = {**annotations, "cronjob.kubernetes.io/instantiate": "manual"}
        obj["spec"] = template["spec"]
    else:
        container: Obj = {"name": name, "image": image}
        if command:
            container["command"] = list(command)
        obj["spec"] = {"template": {"spec": {"containers": [container], "restartPolicy": "Never"}}}
    await _make(session, JOBS, obj, dry_run, output)


@api_command("token", group=create, examples="steer create token robot --duration=1h")
@click.argument("name")
@click.option("--duration", metavar="TIME", default="1h", help="How long the token is valid.")
async def token(session: Session, name: str, duration: str) -> None:
    """Print a token for a service account."""
    from steersman.cli.waiting import DURATION

    seconds = int(DURATION.convert(duration, None, None))
    request = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": seconds, "audiences": []},
    }
    answer = await session.client.create(SERVICE_ACCOUNTS, request, session.namespace, name=name, subresource="token")
    click.echo(answer["status"]["token"])


RUN_EXAMPLES = """
steer run shell --image=busybox --restart=Never -- sleep 600
steer run web --image=nginx:1.27 --port=80 --labels=app=web --env=LEVEL=debug
"""


@api_command("run", examples=RUN_EXAMPLES)
@click.argument("name")
@click.argument("args", nargs=-1, metavar="[-- ARG...]")
@click.option("--image", required=True, metavar="IMAGE", help="Image of the container.")
@click.option("--command", is_flag=True, help="What follows -- is the command, not its arguments.")
@click.option("--env", "environment", multiple=True, metavar="KEY=VALUE", help="Environment variable.")
@click.option("--labels", "-l", default="", metavar="KEY=VALUE,…", help="Labels; run=NAME by default.")
@click.option("--port", type=int, metavar="PORT", help="Port that the container listens on.")
@click.option("--restart", type=click.Choice(["Always", "OnFailure", "Never"]), default="Always")
@click.option("--image-pull-policy", type=click.Choice(["Always", "IfNotPresent", "Never"]))
@_shared
async def run(
    session: Session,
    name: str,
    args: tuple[str, ...],
    image: str,
    command: bool,
    environment: tuple[str, ...],
    labels: str,
    port: int | None,
    restart: str,
    image_pull_policy: str | None,
    dry_run: str,
    output: str | None,
) -> None:
    """Start one pod from an image."""
    container: Obj = {"name": name, "image": image}
    if args:
        container["command" if command else "args"] = list(args)
    if environment:
        pairs = [text.partition("=") for text in environment]
        container["env"] = [{"name": key, "value": value} for key, _, value in pairs]
    if port is not None:
        container["ports"] = [{"containerPort": port}]
    if image_pull_policy:
        container["imagePullPolicy"] = image_pull_policy
    given = dict(pair.split("=", 1) for pair in labels.split(",") if "=" in pair) or {"run": name}
    obj = {"metadata": {"name": name, "labels": given}, "spec": {"containers": [container], "restartPolicy": restart}}
    await _make(session, PODS, obj, dry_run, output)


#: kubectl's shorter words for the same commands
for _short, _command in (("ns", namespace), ("cm", config_map), ("sa", service_account), ("deploy", deployment)):
    create.add_command(_command, _short)

COMMANDS = [create, run]
