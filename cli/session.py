"""A command's connection to its cluster: the client, the namespace in force and the kinds that the server knows."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import click
import orjson

from steersman.cli.errors import Failed, failed, sentence
from steersman.cli.kinds import Kinds
from steersman.cli.options import COMMON, NAMES, Settings, kubeconfig_path, settings
from steersman.cluster.meta.errors import ApiError
from steersman.cluster.meta.jsonpath import JsonPathError
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import Resource

if TYPE_CHECKING:
    from steersman.actors.client import Client

#: makes the client of a command; tests put another one into the click context
Connect = Callable[[Settings], "Client"]

#: what this program calls itself in `managedFields`
FIELD_MANAGER = "steer"


def connect(chosen: Settings) -> Client:
    """Returns a client for the cluster that the settings mean; nothing is sent yet.

    Raises:
        Failed: no usable kubeconfig.
    """
    from steersman.actors.client import Client
    from steersman.actors.kubeconfig import KubeconfigError

    try:
        return Client.from_kubeconfig(
            kubeconfig_path(chosen),
            chosen.context,
            user_agent="steer",
            on_warning=lambda text: click.echo(f"Warning: {text}", err=True),
        )
    except KubeconfigError as error:
        raise failed(f"{error}\nStart a cluster with `steer up`, or name a kubeconfig with --kubeconfig.") from None


class Session:
    """What a command works with.

    Args:
        make: makes the client, when it is first needed.
        chosen: what the user said about cluster and namespace.
    """

    def __init__(self, make: Connect, chosen: Settings) -> None:
        self._make = make
        self._chosen = chosen
        self._client: Client | None = None
        self._kinds: Kinds | None = None

    @property
    def client(self) -> Client:
        if self._client is None:
            self._client = self._make(self._chosen)
        return self._client

    @property
    def namespace(self) -> str:
        """The namespace in force for namespaced kinds."""
        return self._chosen.namespace or self.client.namespace

    @property
    def namespace_given(self) -> bool:
        """Whether the user named the namespace, rather than the kubeconfig."""
        return self._chosen.namespace is not None

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def kinds(self, *, fresh: bool = False) -> Kinds:
        """The kinds that the server offers; asked once unless `fresh`."""
        if self._kinds is None or fresh:
            self._kinds = Kinds(await self.client.discover())
        return self._kinds

    def scope(self, resource: Resource, *, everywhere: bool = False) -> str | None:
        """The namespace to ask for a kind: None for a cluster-scoped one and for all namespaces."""
        return None if everywhere or not resource.namespaced else self.namespace

    async def fetch(self, target: str, *, accept: str = "application/json") -> Obj:
        """GETs a target and returns its JSON; raises ApiError."""
        found: Obj = orjson.loads(await self.read(target, accept=accept))
        return found

    async def read(self, target: str, *, accept: str = "*/*") -> bytes:
        """GETs a target and returns its body; raises ApiError."""
        from steersman.actors.client import read_body

        return await read_body(await self._answer("GET", target, accept=accept))

    async def post(self, target: str, obj: Obj, headers: Mapping[str, str] | None = None) -> Obj:
        """POSTs an object to a target and returns the answer; raises ApiError."""
        from steersman.actors.client import read_body

        headers = {"content-type": "application/json", **(headers or {})}
        answer = await self._answer("POST", target, body=orjson.dumps(obj), headers=headers)
        found: Obj = orjson.loads(await read_body(answer))
        return found

    async def stream(self, target: str, *, accept: str) -> AsyncIterator[Obj]:
        """GETs a stream of JSON lines, as a watch is one; raises ApiError."""
        answer = await self._answer("GET", target, accept=accept)
        rest = b""
        async for chunk in _pieces(answer.body):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if line:
                    yield orjson.loads(line)
        if rest:
            yield orjson.loads(rest)

    async def download(self, target: str) -> AsyncIterator[bytes]:
        """GETs a target and yields its body as it comes; raises ApiError."""
        answer = await self._answer("GET", target, accept="*/*")
        async for chunk in _pieces(answer.body):
            yield chunk

    async def _answer(
        self,
        method: str,
        target: str,
        *,
        accept: str = "application/json",
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        from steersman.actors.client import read_body
        from steersman.actors.http.client import error_of

        answer = await self.client.request(method, target, body, {"accept": accept, **(headers or {})})
        if answer.status >= 400:
            raise error_of(answer.status, await read_body(answer))
        return answer


async def _pieces(body: Any) -> AsyncIterator[bytes]:
    if isinstance(body, bytes):
        yield body
        return
    async for chunk in body:
        yield chunk


def target(path: str, **query: str | int | None) -> str:
    """A path with those query parameters that are set."""
    given = {name: str(value) for name, value in query.items() if value not in (None, "")}
    return quote(path, safe="/:@!$&'()*+,;=~") + (f"?{urlencode(given)}" if given else "")


class ApiCommand(click.Command):
    """A command with the shared options and a block of examples below its help."""

    def __init__(self, *args: Any, examples: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += [option() for option in COMMON]
        self.examples = examples

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        plain = [word for text in args[:end] for word in self._plain_flag(text)]
        return super().parse_args(ctx, plain + args[end:])

    def _plain_flag(self, word: str) -> list[str]:
        """Reads `--wait=false` as `--no-wait`, since flags take no values here but do in kubectl."""
        name, _, value = word.partition("=")
        if value.lower() not in ("true", "false"):
            return [word]
        for param in self.params:
            if isinstance(param, click.Option) and param.is_bool_flag and name in param.opts:
                return [name] if value.lower() == "true" else param.secondary_opts[:1]
        return [word]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.examples:
            write_examples(self.examples, formatter)


def write_examples(examples: str, formatter: click.HelpFormatter) -> None:
    with formatter.section("Examples"):
        for line in examples.strip().splitlines():
            formatter.write(f"  {line.strip()}\n")


class ExampleGroup(click.Group):
    """A group of commands with a block of examples."""

    def __init__(self, *args: Any, examples: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(self.examples, formatter)


def api_command(
    name: str, *, examples: str, group: click.Group | None = None
) -> Callable[[Callable[..., Awaitable[None]]], click.Command]:
    """Makes a click command of a coroutine function that takes a session and the command's parameters."""

    def decorate(function: Callable[..., Awaitable[None]]) -> click.Command:
        @functools.wraps(function)
        def callback(**params: Any) -> None:
            ctx = click.get_current_context()
            chosen = settings(ctx, {key: params.pop(key) for key in NAMES})
            make: Connect = (ctx.obj or {}).get("connect", connect)
            perform(make, chosen, lambda session: function(session, **params))

        made = click.command(name, cls=ApiCommand, examples=examples)(callback)
        if group is not None:
            group.add_command(made)
        return made

    return decorate


def perform(make: Connect, chosen: Settings, work: Callable[[Session], Awaitable[None]]) -> None:
    """Runs a command to its end and turns what went wrong into a message and an exit code."""
    try:
        asyncio.run(_perform(make, chosen, work))
    except KeyboardInterrupt:
        sys.exit(130)
    except BaseExceptionGroup as group:
        raise _failure(_first(group)) from None
    except (ApiError, JsonPathError, BrokenPipeError) as error:
        raise _failure(error) from None


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _failure(error: BaseException) -> BaseException:
    if isinstance(error, ApiError):
        return Failed(sentence(error))
    if isinstance(error, JsonPathError):
        return failed(f"error parsing jsonpath: {error}")
    return error


async def _perform(make: Connect, chosen: Settings, work: Callable[[Session], Awaitable[None]]) -> None:
    session = Session(make, chosen)
    try:
        await work(session)
    finally:
        await session.close()
