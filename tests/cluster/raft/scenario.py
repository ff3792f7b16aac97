"""Stories of a group as text: commands, and below each block what it printed.

    # a comment
    nodes 3
    campaign 1
    deliver
    ----
    1 leads in term 1

An empty line ends a block. `REWRITE=1 pytest tests/cluster/raft` writes the outputs anew: read the difference before
you keep it. The commands are the methods `do_…` of `Scenario`; messages are picked by `from=`, `to=` and `kind=`, where
`kind=append,vote` takes several kinds and `kind=!append` all others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from tests.cluster.raft.group import ELECTION_TICKS, TICK_S, Group

from steersman.cluster.raft import leadership
from steersman.cluster.raft.core import Raft
from steersman.cluster.raft.membership import ChangeRefused
from steersman.cluster.raft.values import ChangeKind, ConfigChange, Entry, EntryKind, HardState, Message

_CHANGES = {
    "add-learner": ChangeKind.ADD_LEARNER, "add-voter": ChangeKind.ADD_VOTER, "promote": ChangeKind.ADD_VOTER,
    "remove": ChangeKind.REMOVE,
}  # fmt: skip
_LIMITS = {
    "append-bytes": "APPEND_BYTES_MAX", "snapshots": "SNAPSHOTS_MAX", "uncommitted-bytes": "UNCOMMITTED_BYTES_MAX",
    "promotion-lag": "PROMOTION_LAG_MAX",
}  # fmt: skip


@dataclass
class Block:
    """Comments and commands as they stand, and the output that is expected."""

    lines: list[str]
    expected: str


def parse(text: str) -> Iterator[Block]:
    for part in text.strip().split("\n\n"):
        lines, _, expected = part.partition("\n----")
        yield Block(lines.splitlines(), expected.strip("\n"))


def render(blocks: list[Block]) -> str:
    parts = []
    for block in blocks:
        parts.append("\n".join(block.lines) + (f"\n----\n{block.expected}" if block.expected else ""))
    return "\n\n".join(parts) + "\n"


def play(path: Path, raft: type[Raft] = Raft) -> list[Block]:
    """Returns the blocks of a story with the output that they have now; an AssertionError says which promise broke."""
    scenario = Scenario(raft)
    with scenario.limits:
        return [Block(block.lines, scenario.run(block.lines)) for block in parse(path.read_text())]


class Scenario:
    def __init__(self, raft: type[Raft]) -> None:
        self._raft = raft
        self._group: Group | None = None
        self._printed: list[str] = []
        self._leading: dict[int, int] = {}
        self._reads_told: dict[int, int] = {}
        self._refusals_told: dict[int, int] = {}
        self.limits = ExitStack()

    @property
    def group(self) -> Group:
        assert self._group is not None, "the first command is nodes"
        return self._group

    def run(self, lines: list[str]) -> str:
        self._printed = []
        for line in lines:
            if line.startswith("#"):
                continue
            name, *arguments = line.split()
            positional = [argument for argument in arguments if "=" not in argument]
            named = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
            getattr(self, "do_" + name.replace("-", "_"))(*positional, **named)
            self._tell_news()
        return "\n".join(self._printed)

    def _print(self, text: str) -> None:
        self._printed.append(text)

    def _tell_news(self) -> None:
        """Tells who leads, leads no more, which reads may be answered, and which forwarded proposals were refused."""
        for number, member in self.group.members.items():
            core = member.core
            term = core.term if core is not None and core.is_leader else 0
            if term != self._leading.get(number, 0):
                self._print(f"{number} leads in term {term}" if term else f"{number} leads no more")
                self._leading[number] = term
            for request, index in member.reads[self._reads_told.get(number, 0) :]:
                self._print(f"{number} may answer read {request} at {index}")
            self._reads_told[number] = len(member.reads)
            for forwarded in member.refused[self._refusals_told.get(number, 0) :]:
                self._print(f"{number} was refused proposal {forwarded}")
            self._refusals_told[number] = len(member.refused)

    def _check(self, taken: bool) -> None:
        if not taken:
            self._print("refused")

    # the group

    def do_nodes(self, count: str, *options: str) -> None:
        """nodes COUNT [leases] [slow-disk] [late-news]: founds a group.

        On slow disks only `save` makes a write durable; with late news only `tell` makes a leader tell of a commit
        where nothing else does.
        """
        assert set(options) <= {"leases", "slow-disk", "late-news"}
        self._group = Group(
            int(count), leases="leases" in options, saves_at_once="slow-disk" not in options,
            tells_at_once="late-news" not in options, raft=self._raft,
        )  # fmt: skip

    def do_disk(self, number: str, *, terms: str = "", term: str = "0", vote: str = "0", commit: str = "0") -> None:
        """disk N terms=1,1,2 term=T vote=V commit=C: what member N finds on its disk; entries differ by their term."""
        member = self.group.members[int(number)]
        rows = [int(row) for row in terms.split(",") if row]
        member.entries = [Entry(index, row, b"%d.%d" % (row, index)) for index, row in enumerate(rows, 1)]
        member.hard_state = HardState(int(term), int(vote), int(commit))
        self.group.restart(member.number)

    def do_limit(self, name: str, value: str) -> None:
        """limit NAME VALUE: another bound than usual, for this story."""
        self.limits.enter_context(mock.patch.object(leadership, _LIMITS[name], int(value)))

    def do_add(self, number: str) -> None:
        """add N: a machine that knows nothing of the group."""
        self.group.add(int(number))

    def do_crash(self, *numbers: str) -> None:
        for number in numbers:
            self.group.crash(int(number))

    def do_restart(self, *numbers: str) -> None:
        for number in numbers:
            self.group.restart(int(number))

    def do_save(self, number: str, count: str = "1000") -> None:
        """save N [COUNT]: makes the oldest writes of a slow disk durable."""
        member = self.group.members[int(number)]
        self.group.save(member, int(count))
        self.group.drain(member)

    def do_tell(self, number: str) -> None:
        self.group.tell(int(number))

    # time

    def do_tick(self, number: str, times: str = "1") -> None:
        self.group.tick(int(number), int(times))

    def do_tick_early(self, number: str, times: str) -> None:
        """tick-early N TIMES: as tick, but the first comes at once."""
        self.group[int(number)].tick(self.group.clock(int(number)))
        self.group.drain(self.group.members[int(number)])
        self.group.tick(int(number), int(times) - 1)

    def do_silence(self, *numbers: str) -> None:
        """silence [N N …]: two election timeouts in which these hear nothing, and what they send is lost."""
        before = list(self.group.wire)
        for _ in range(2 * ELECTION_TICKS):
            self.group.now += TICK_S
            for member in self.group.alive:
                if not numbers or str(member.number) in numbers:
                    self.group[member.number].tick(self.group.clock(member.number))
                    self.group.drain(member)
        self.group.wire = before

    def do_pass(self, seconds: str) -> None:
        """pass SECONDS: everybody is stopped for so long."""
        self.group.now += float(seconds)

    def do_run(self, *numbers: str) -> None:
        """run N N …: time passes for these until one of them leads."""
        self.group.run(*map(int, numbers))

    # the network

    def do_deliver(self, *, kind: str = "", to: str = "", **named: str) -> None:
        """deliver [from=N] [to=N] [kind=KIND]: until none of these messages is left."""
        self.group.deliver(_picked(kind, to, named.get("from", "")))

    def do_drop(self, *, kind: str = "", to: str = "", **named: str) -> None:
        wanted = _picked(kind, to, named.get("from", ""))
        gone = [message for message in self.group.wire if wanted(message)]
        self.group.wire = [message for message in self.group.wire if not wanted(message)]
        for message in gone:
            self.group.lose(message)

    def do_repeat(self, *, kind: str = "", to: str = "", **named: str) -> None:
        """repeat …: these messages will come twice."""
        self.group.wire += [m for m in self.group.wire if _picked(kind, to, named.get("from", ""))(m)]

    def do_wire(self) -> None:
        """wire: what is on its way."""
        for m in self.group.wire:
            terms = ",".join(str(entry.term) for entry in m.entries)
            refused = " refused" if m.rejected else ""
            self._print(
                f"{m.sender}->{m.to} {m.kind.name.lower()} term={m.term}"
                f" index={m.index}{f' entries={terms}' if terms else ''}{refused}"
            )

    def do_isolate(self, number: str) -> None:
        self.group.isolate(int(number))

    def do_cut(self, sender: str, *receivers: str) -> None:
        """cut N M …: nothing of N reaches M any more; the other way stays open."""
        self.group.cut |= {(int(sender), int(receiver)) for receiver in receivers}

    def do_heal(self) -> None:
        self.group.heal()

    # what a shell asks for

    def do_campaign(self, number: str) -> None:
        self.group[int(number)].campaign()
        self.group.drain(self.group.members[int(number)])

    def do_propose(self, number: str, *data: str) -> None:
        self._check(self.group.propose(int(number), *data))

    def do_read(self, number: str, request: str) -> None:
        self._check(self.group.read(int(number), int(request)))

    def do_change(self, number: str, kind: str, member: str) -> None:
        """change N add-learner|add-voter|promote|remove M"""
        try:
            self._check(self.group.change(int(number), ConfigChange(_CHANGES[kind], int(member), f"m{member}")))
        except ChangeRefused as error:
            self._print(f"refused: {error}")

    def do_transfer(self, number: str, to: str) -> None:
        self._check(self.group[int(number)].transfer(int(to)))
        self.group.drain(self.group.members[int(number)])

    def do_compact(self, number: str) -> None:
        self.group.compact(int(number))

    # what it looks like

    def do_status(self, *numbers: str) -> None:
        for number in map(int, numbers or map(str, self.group.members)):
            core = self.group.members[number].core
            if core is None:
                self._print(f"{number} down")
                continue
            log, config = core.log, core.config
            learners = f" learners={_list(config.learners)}" if config.learners else ""
            self._print(
                f"{number} {core.role.name.lower()} term={core.term} vote={core.vote} leader={core.leader}"
                f" last={log.last} commit={log.committed} voters={_list(config.voters)}{learners}"
            )

    def do_terms(self, *numbers: str) -> None:
        """terms N …: the term of each entry that a member holds."""
        for number in numbers:
            log = self.group[int(number)].log
            before = f"(snapshot to {log.start - 1}) " if log.start > 1 else ""
            self._print(f"{number} {before}{_list(log.term(index) for index in range(log.start, log.last + 1))}")

    def do_data(self, *numbers: str) -> None:
        """data N …: the commands that a member has applied."""
        for number in numbers:
            applied = self.group.members[int(number)].applied
            words = [e.data.decode() for e in applied if e.data and e.kind is EntryKind.COMMAND]
            self._print(" ".join([number, *words]))

    def do_flow(self, number: str) -> None:
        """flow N: what leader N knows of the others."""
        leading = self.group[int(number)]._leadership
        if leading is None:
            self._print("does not lead")
            return
        for member, progress in leading.progress.items():
            self._print(f"{member} {progress.flow.name.lower()} match={progress.match} next={progress.next}")


def _list(numbers: object) -> str:
    return ",".join(str(number) for number in numbers)  # type: ignore[attr-defined]


def _picked(kind: str, to: str, sender: str) -> Callable[[Message], bool]:
    kinds = set(kind.removeprefix("!").split(",")) if kind else set()

    def wanted(message: Message) -> bool:
        named = message.kind.name.lower() in kinds
        return (
            (not kind or named != kind.startswith("!"))
            and (not to or message.to == int(to))
            and (not sender or message.sender == int(sender))
        )

    return wanted
