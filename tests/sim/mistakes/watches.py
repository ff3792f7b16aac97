"""Mistakes with watches and the past: each breaks another one of their guarantees."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
from tests.sim.mistakes.patching import Patch, around

from steersman.actors.store.watches import Watches
from steersman.cluster.store.mvcc import Mvcc
from steersman.cluster.store.values import WatchBatch, WatchEvent


def _shown_as(patch: Patch, change: Callable[[WatchBatch], list[WatchBatch]]) -> None:
    """Lets every watch show other batches than it would."""

    def watch(original: Any, *args: Any) -> AsyncIterator[WatchBatch]:
        batches = original(*args)

        async def changed() -> AsyncIterator[WatchBatch]:
            async for batch in batches:
                for each in change(batch):
                    yield each

        return changed()

    around(patch, Watches, "watch", watch)


def show_changes_out_of_order(patch: Patch) -> None:
    _shown_as(patch, lambda batch: [WatchBatch(batch.revision, batch.events[::-1])])


def show_a_change_twice(patch: Patch) -> None:
    _shown_as(patch, lambda batch: [WatchBatch(batch.revision, batch.events + batch.events[-1:])])


def show_a_transaction_in_parts(patch: Patch) -> None:
    _shown_as(patch, lambda batch: [WatchBatch(batch.revision, part) for part in _split(batch.events)])


def _split(events: tuple[WatchEvent, ...]) -> list[tuple[WatchEvent, ...]]:
    return [events[:1], events[1:]] if len(events) > 1 else [events]


def lose_a_change_when_many_come_at_once(patch: Patch) -> None:
    _shown_as(patch, lambda batch: [WatchBatch(batch.revision, batch.events[:4])])


def resume_a_watch_one_late(patch: Patch) -> None:
    def watch(original: Any, watches: Watches, key: bytes, end: bytes, start: int) -> Any:
        return original(watches, key, end, start + 1 if start else 0)

    around(patch, Watches, "watch", watch)


def resume_a_watch_one_early(patch: Patch) -> None:
    def watch(original: Any, watches: Watches, key: bytes, end: bytes, start: int) -> Any:
        return original(watches, key, end, start - 1 if start > watches._state().compacted + 1 else start)

    around(patch, Watches, "watch", watch)


def tell_of_a_revision_that_was_not_shown(patch: Patch) -> None:
    """The revision from which the client will resume is one too high."""
    _shown_as(patch, lambda batch: [WatchBatch(batch.revision + 1, batch.events)])


def show_no_previous_value(patch: Patch) -> None:
    def without(batch: WatchBatch) -> list[WatchBatch]:
        events = tuple(msgspec.structs.replace(event, prev_kv=None) for event in batch.events)
        return [WatchBatch(batch.revision, events)]

    _shown_as(patch, without)


def forget_watchers_when_the_state_is_replaced(patch: Patch) -> None:
    patch.setattr(Watches, "state_replaced", lambda _: None)


def forget_more_of_the_past_than_was_asked(patch: Patch) -> None:
    def compact(original: Any, state: Mvcc, revision: int) -> None:
        original(state, revision)
        begin = min(state.revision, revision + 10)
        del state._log[: begin - state._log_start]
        state._log_start = max(begin, state._log_start)

    around(patch, Mvcc, "_compact", compact)


def undo_nothing_in_reads_of_the_past(patch: Patch) -> None:
    def past(_original: Any, state: Mvcc, *_request: Any) -> Any:
        return list(state._live.values()), 0

    around(patch, Mvcc, "_range_past", past)
