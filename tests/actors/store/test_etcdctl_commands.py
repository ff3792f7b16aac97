"""Every command of etcdctl 3.4, against this store and against a real etcd, both with client certificates: they say the
same, but for what is left out and refused by name.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.actors.store.realetcd import needs_etcd, real_etcd

pytestmark = needs_etcd

#: a command a line, with what it is given to read after `<<<`; LEASE is the lease granted last, MEMBER the server
SCRIPT = r"""
version
put /a 1
put /a 2 --prev-kv
put /a --ignore-value
put /a 3 --ignore-lease --prev-kv
put /missing --ignore-value
put /missing x --ignore-lease
put /a x --lease=99
put "" x
put /typed <<< from stdin
put
put /b 2
put /c/d 3
put -- -k -v

get /a
get /a -w json
get /a -w fields
get /a -w table
get /a --hex
get /a --consistency=s
get /a --consistency=x
get /a /c
get / --prefix
get "" --prefix --keys-only
get /b --from-key --limit=2
get /b --from-key --prefix
get / --prefix --print-value-only --order=DESCEND
get / --prefix --sort-by=MODIFY --order=DESCEND --keys-only
get / --prefix --sort-by=VERSION
get / --prefix --sort-by=VALUE -w json
get / --prefix --sort-by=CREATE --limit=1
get / --prefix --sort-by=NOTHING
get /a --rev=2
get /a --rev=3 -w json
get /a --rev=1000
get /a --user=root:secret
put /a 3 --user=root --password=secret
get

txn -w json <<< mod("/a") > "0"\n\nput /t 1\nget /t\n\nget /a\n\n
txn <<< val("/t") = "2"\nver("/t") = "1"\n\nput /t no\n\nput /t "two words"\nget /t\ndel /b --prev-kv\n\n
txn -i <<< create("/t") != "0"\n\nput /t 3 --prev-kv\n\n\n
txn <<< ver("/nothing") = "0"\n\nput /t 4\nput /t 5\n\n\n
txn <<< nonsense("/t") = "1"\n\n\n\n
txn
del /t --prev-kv
del /t
del /c --prefix -w json
del / /b --prev-kv
del /typed --from-key -w fields
del

compaction 4
compaction 4
compaction 100000
compaction 5 --physical
compaction nothing
get /a --rev=2
watch /a --rev=2
watch

lease grant 100
put /leased 1 --lease=LEASE
lease timetolive LEASE --keys
put /leased/too 2 --lease=LEASE
lease timetolive LEASE -w json
lease list
lease list -w json
lease keep-alive --once LEASE
lease keep-alive
lease revoke LEASE
lease revoke LEASE
lease timetolive LEASE
lease keep-alive --once LEASE
get /leased --prefix
lease grant 0
lease revoke LEASE
lease grant 99999999999
lease grant nothing
lease grant 60 -w json

endpoint health
endpoint health --cluster
endpoint health -w json
endpoint status
endpoint status --cluster -w json
endpoint status -w fields
endpoint hashkv
endpoint hashkv --rev=5 -w json
endpoint hashkv --rev=2
endpoint hashkv --rev=100000
alarm list
alarm disarm
alarm disarm nothing
defrag
defrag --cluster

member list
member list -w json
member add other
member add other --peer-urls=nothing
member add other --learner --peer-urls=http://127.0.0.1:9
member list
member add another --learner --peer-urls=http://127.0.0.1:19
member remove 99
member promote 99
member update 99 --peer-urls=http://127.0.0.1:29
member promote nothing
move-leader 99
move-leader nothing
move-leader

snapshot save DIRECTORY/saved
snapshot save DIRECTORY/nowhere/saved
snapshot save
snapshot status DIRECTORY/saved
snapshot restore DIRECTORY/saved --data-dir=DIRECTORY/restored
snapshot restore DIRECTORY/saved --data-dir=DIRECTORY/restored
snapshot status DIRECTORY/nothing

lock here echo held
lock here -- sh -c 'echo $ETCD_LOCK_KEY; exit 3'
elect chief
elect -l

migrate --data-dir=DIRECTORY/nothing
check datascale
check perf --load=nothing
completion bash
completion fish
completion powershell
completion zsh
help
"""

#: commands that last: how they end and what they show is in tests of their own
LASTING = {"check perf", "make-mirror"}

#: what this store refuses, in these words; etcd without users does some of it, and says so of the rest
REFUSED = """
auth enable
auth disable
user add somebody:secret
user add somebody --no-password
user add somebody --new-user-password=secret
user delete somebody
user get somebody --detail
user list
user passwd somebody --interactive=false <<< secret
user grant-role somebody some
user revoke-role somebody some
role add some
role delete some
role get some
role list
role grant-permission some read /a --prefix
role revoke-permission some /a
"""
REFUSAL = "this store knows no users and roles: client certificates decide who may use it"

#: what differs between two servers whatever they are
NORMAL = [
    (re.compile(r'^\{"level":.*\n', re.M), ""),
    (re.compile(r'"(cluster_id|member_id|raft_term|ID|id|hash|ttl)":\d+'), r'"\1":N'),
    (re.compile(r'"(leader|raftTerm|raftIndex|raftAppliedIndex)":\d+'), r'"\1":N'),
    (re.compile(r"remaining\(\d+s\)"), "remaining"),
    (re.compile(r'"(ClusterID|MemberID|RaftTerm|RaftIndex|RaftAppliedIndex|Leader|Hash)" : \d+'), r'"\1" : N'),
    (re.compile(r'"(dbSize|dbSizeInUse)":\d+,?'), ""),
    (re.compile(r'"(DBSize|DBSizeInUse)" : \d+'), ""),
    (re.compile(r'("?[Vv]ersion"?) ?: ?"3\.4\.\d+"'), "VERSION"),
    (re.compile(r"https?://127\.0\.0\.1:\d+"), "URL"),
    (re.compile(r"127\.0\.0\.1:\d+"), "HOST"),
    (re.compile(r"took = [\d.µm]+s|\"took\":\"[^\"]*\""), "TOOK"),
    (re.compile(r"(here|chief)/[0-9a-f]+"), r"\1/SESSION"),
    (re.compile(r"^HOST, \d+$", re.M), "HOST, HASH"),
    (re.compile(r"^(HOST|URL), [0-9a-f]+, 3.4.\d+, .*? [kM]?B, true, false, .*", re.M), r"\1 STATUS"),
    (re.compile(r"^[0-9a-f]+, (started|unstarted)", re.M), r"MEMBER, \1"),
    # members come in the order of their ids, which are a matter of chance
    (re.compile(r"^(MEMBER, unstarted.*)\n(MEMBER, started.*)$", re.M), r"\2\n\1"),
    (re.compile(r"other=URL,(s1|default)=URL"), r"\1=URL,other=URL"),
    (re.compile(r"^Member +[0-9a-f]+ added to cluster +[0-9a-f]+", re.M), "Member ADDED"),
    (re.compile(r'"name":"(s1|default)"|, (s1|default),'), "NAME"),
    (re.compile(r"\b(s1|default)=URL"), "NAME=URL"),
    (re.compile(r"^[0-9a-f]+, (\d+), \d+, [\d.]+ kB$", re.M), r"HASH, \1"),
    (re.compile(r"lease [0-9a-f]{15,16}|^[0-9a-f]{15,16}$", re.M), "lease ID"),
]


@dataclass
class Side:
    """One of the two servers, as etcdctl sees it."""

    address: str
    environment: dict[str, str]
    directory: Path
    lease: str = "0"

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        command = ("etcdctl", f"--endpoints={self.address}", *arguments)
        return await asyncio.create_subprocess_exec(
            *command, env=self.environment, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT
        )

    async def run(self, line: str) -> str:
        """Returns what a line of the script shows, its exit code at the end."""
        text, _, given = line.partition(" <<< ")
        words = [word.replace("LEASE", self.lease).replace("DIRECTORY", str(self.directory)) for word in
                 shlex.split(text)]  # fmt: skip
        process = await self.start(*words)
        async with asyncio.timeout(30):
            out = (await process.communicate(given.replace(r"\n", "\n").encode()))[0].decode(errors="replace")
        if granted := re.search(r"lease ([0-9a-f]+) granted", out):
            self.lease = granted[1]
        return f"{out}exit {process.returncode}"

    async def shown(self, *arguments: str, until: str, given: str = "") -> str:
        """Returns what a command shows up to some text, and ends it then, as hard as can be."""
        process = await self.start(*arguments)
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(given.encode())
            async with asyncio.timeout(30):
                return (await process.stdout.readuntil(until.encode())).decode()
        finally:
            process.kill()
            await process.communicate()

    def normal(self, out: str) -> str:
        for pattern, replacement in NORMAL:
            out = pattern.sub(replacement, out)
        # members come in the order of their ids, which are drawn by chance
        out = re.sub(r"(^MEMBER, .*\n)+", lambda found: "".join(sorted(found[0].splitlines(True))), out, flags=re.M)
        out = re.sub(r'(?<=CLUSTER=")[^"]*', lambda found: ",".join(sorted(found[0].split(","))), out)
        return out.replace(str(self.directory), "DIRECTORY")


@pytest.fixture
async def sides(served: Callable[..., Any], pki: Any, tmp_path: Path) -> AsyncIterator[tuple[Side, Side]]:
    """(ours, etcd), both empty, both over TLS."""
    environment = os.environ | {
        "ETCDCTL_API": "3",
        "ETCDCTL_CACERT": str(pki.directory / "ca.crt"),
        "ETCDCTL_CERT": str(pki.directory / "store.crt"),
        "ETCDCTL_KEY": str(pki.directory / "store.key"),
    }
    async with served(1, pki) as group, real_etcd(tmp_path, pki) as address:
        sides = []
        for name, each in (("ours", group.peers[1]), ("theirs", address)):
            (tmp_path / name).mkdir()
            sides.append(Side(each, environment, tmp_path / name))
        async with asyncio.timeout(20):
            for side in sides:
                while "is healthy" not in await side.run("endpoint health"):
                    pass
        yield sides[0], sides[1]


def lines_of(script: str) -> list[str]:
    return [line for line in script.splitlines() if line]


async def test_every_command_says_what_it_says_of_etcd(sides: tuple[Side, Side]) -> None:
    ours, etcd = sides
    differences = []
    for line in lines_of(SCRIPT):
        found, expected = await asyncio.gather(ours.run(line), etcd.run(line))
        if ours.normal(found) != etcd.normal(expected):
            differences.append(f"# {line}\n- ours\n{ours.normal(found)}\n- etcd\n{etcd.normal(expected)}\n")
    assert not differences, "\n".join(differences)


async def test_what_is_left_out_is_refused_by_name(sides: tuple[Side, Side]) -> None:
    lines = lines_of(REFUSED)
    for line, said in zip(lines, await asyncio.gather(*(sides[0].run(line) for line in lines)), strict=True):
        assert REFUSAL in said and said.endswith("exit 1"), f"{line}: {said}"


def test_no_command_was_forgotten() -> None:
    shown = subprocess.run(
        ["etcdctl", "--help"], env=os.environ | {"ETCDCTL_API": "3"}, capture_output=True, text=True, check=True
    ).stdout
    listed = re.search(r"COMMANDS:\n(.*?)\n\n", shown, re.S)
    assert listed is not None
    commands = [re.split(r"\t+", line.strip())[0] for line in listed[1].splitlines()]
    ran = [*lines_of(SCRIPT), *lines_of(REFUSED), *LASTING]
    missing = [name for name in commands if not any((line + " ").startswith(name + " ") for line in ran)]
    assert len(commands) > 45 and not missing


async def test_watches_show_the_same(sides: tuple[Side, Side]) -> None:
    script = "watch /w --rev 2 --prev-kv\n"
    executed = "watch /w --rev 4 -- echo executed\n"
    shown = []
    for side in sides:
        for line in ("put /w 1", "put /w 2", "del /w", "put /wide 3"):
            await side.run(line)
        shown.append(
            [
                await side.shown("watch", "/w", "--rev=2", "--prev-kv", until="DELETE\n/w\n2\n/w\n"),
                await side.shown("watch", "--prefix", "/w", "--rev=3", until="/wide\n3\n"),
                await side.shown("watch", "/w", "--rev=3", "--", "sh", "-c", "env | grep ETCD_WATCH | sort",
                                 until='ETCD_WATCH_VALUE=""\n'),
                await side.shown("watch", "-i", given=script, until="DELETE\n/w\n2\n/w\n"),
                await side.shown("watch", "-i", given=executed, until="executed\n"),
            ]
        )  # fmt: skip
    assert shown[0] == shown[1]


async def test_a_watch_tells_its_progress_when_asked(sides: tuple[Side, Side]) -> None:
    for side in sides:
        await side.run("put /w 1")
        said = await side.shown("watch", "-i", given="watch /w\nprogress\n", until="\n")
        assert said == "progress notify: 2\n"


async def test_leases_are_kept_alive_as_long_as_somebody_does(sides: tuple[Side, Side]) -> None:
    for side in sides:
        await side.run("lease grant 2")
        kept = f"lease {side.lease} keepalived with TTL(2)\n"
        assert await side.shown("lease", "keep-alive", side.lease, until=kept * 2) == kept * 2


async def test_a_lock_is_free_when_the_session_of_its_dead_holder_has_ended(sides: tuple[Side, Side]) -> None:
    async def played(side: Side) -> None:
        await side.shown("lock", "--ttl=2", "mine", until="\n")  # killed: nobody unlocks it
        assert "held\nexit 0" in await side.run("lock mine echo held")

    await asyncio.gather(*(played(side) for side in sides))


async def test_an_election_is_won_by_one_and_by_the_next_when_the_first_is_dead(sides: tuple[Side, Side]) -> None:
    async def played(side: Side) -> None:
        first = await side.start("elect", "chief", "me")
        assert first.stdout is not None
        assert (await first.stdout.readline()).startswith(b"chief/") and await first.stdout.readline() == b"me\n"
        second = asyncio.create_task(side.shown("elect", "chief", "you", until="you\n"))
        observed = await side.shown("elect", "-l", "chief", until="me\n")
        assert re.fullmatch(r"chief/[0-9a-f]+\nme\n", observed)
        first.terminate()  # it resigns
        await first.communicate()
        assert re.fullmatch(r"chief/[0-9a-f]+\nyou\n", await second)

    await asyncio.gather(*(played(side) for side in sides))


async def test_keys_are_mirrored_both_ways(sides: tuple[Side, Side], pki: Any) -> None:
    tls = [f"--dest-{flag}={pki.directory / name}" for flag, name in
           (("cacert", "ca.crt"), ("cert", "store.crt"), ("key", "store.key"))]  # fmt: skip
    for source, target in (sides, sides[::-1]):
        await source.run("put /m/before 1")
        mirror = await source.start(
            "make-mirror",
            "--prefix=/m/",
            "--dest-prefix=/copy/",
            "--dest-insecure-transport=false",
            *tls,
            target.address,
        )
        try:
            async with asyncio.timeout(20):
                while "1\nexit 0" not in await target.run("get /copy/before --print-value-only"):
                    pass
                await source.run("put /m/after 2")
                await source.run("del /m/before")
                while await target.run("get /copy --prefix --keys-only") != "/copy/after\n\nexit 0":
                    pass
        finally:
            mirror.kill()
            await mirror.communicate()
        for side in sides:
            await side.run("del / --prefix")


async def test_the_performance_check_begins(sides: tuple[Side, Side]) -> None:
    """It takes a minute, of which a second is enough: it has written a hundred times by then."""
    await sides[0].shown("check", "perf", until=" 1 / 60 ")
    written = await sides[0].run("get /etcdctl-check-perf/ --prefix --keys-only")
    assert written.count("/etcdctl-check-perf/") > 50


async def test_a_client_without_a_certificate_is_kept_out(sides: tuple[Side, Side]) -> None:
    for side in sides:
        side.environment = {
            key: value for key, value in side.environment.items() if not key.endswith(("_CERT", "_KEY"))
        }
        said = await side.run("get /a --dial-timeout=1s --command-timeout=1s")
        assert "exit 1" in said, said
