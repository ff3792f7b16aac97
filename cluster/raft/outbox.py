"""What a member has to say, until the shell takes it: at once, or when everything before it is durable."""

from __future__ import annotations

from steersman.cluster.raft.values import Message, MessageKind


class Outbox:
    """Args: member: who sends.

    Attributes:
        messages: depend on nothing that is not durable yet.
        replies: what others may rely on; they leave after everything handed out so far is durable.
        installs: announce the state machine itself.
        answered: this member's own reads, as (request, index).
    """

    def __init__(self, member: int) -> None:
        self._member = member
        self.messages: list[Message] = []
        self.replies: list[Message] = []
        self.installs: list[Message] = []
        self.answered: list[tuple[int, int]] = []

    def __bool__(self) -> bool:
        return bool(self.messages or self.replies or self.installs or self.answered)

    def send(self, kind: MessageKind, to: int, *, term: int, context: int = 0, index: int = 0, commit: int = 0) -> None:
        self.messages.append(
            Message(kind=kind, sender=self._member, to=to, term=term, context=context, index=index, commit=commit)
        )

    def reply(
        self, kind: MessageKind, to: int, *, term: int, index: int = 0, rejected: bool = False, hint: int = 0,
        hint_term: int = 0, log_term: int = 0, forced: bool = False,
    ) -> None:  # fmt: skip
        self.replies.append(
            Message(
                kind=kind, sender=self._member, to=to, term=term, index=index, rejected=rejected, hint=hint,
                hint_term=hint_term, log_term=log_term, forced=forced,
            )
        )  # fmt: skip

    def answer_read(self, to: int, request: int, index: int, term: int) -> None:
        """Tells from which index on a read may be answered."""
        if to == self._member:
            self.answered.append((request, index))
        else:
            self.send(MessageKind.READ_INDEX_REPLY, to, term=term, context=request, index=index)
