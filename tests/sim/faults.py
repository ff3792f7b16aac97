"""What goes wrong in a simulated store. Each sort is counted where it takes effect, not where a story wishes for it, so
that a simulator that no longer brings it about is noticed."""

from __future__ import annotations

from collections import Counter
from enum import Enum


class Fault(Enum):
    """One sort of trouble; the value says what was counted."""

    # the network
    LETTER_LOST = "a letter is lost"
    LETTER_LATE = "a letter takes several times its usual way"
    LETTER_REPEATED = "a letter arrives twice"
    LETTER_OVERTAKEN = "a letter arrives before one that was sent earlier"
    CUT_ONE_WAY = "a letter is stopped by a cut that lets the other direction pass"
    CUT_BOTH_WAYS = "a letter is stopped by a cut of both directions"
    LOSS_TOLD = "a member is told that its letters were lost"
    SNAPSHOT_BROKEN = "the stream of a snapshot breaks in the middle"
    REMOVAL_TOLD = "a member learns from another one that it was removed"
    # the disk
    WRITES_LOST = "bytes that were not synced are gone after a crash"
    WRITE_TORN = "a sector that was not synced reads as zeros after a crash, and a later one does not"
    NAME_LOST = "a new, changed or removed name that was not synced is undone by a crash"
    WRITE_FAILED = "a write raises EIO"
    SYNC_FAILED = "a sync raises EIO"
    DISK_FULL = "a write raises ENOSPC"
    WRITE_CUT_SHORT = "only a part of a write fits on the disk"
    DISK_SLOW = "work of the disk takes ten times its usual time"
    BIT_ROTTEN = "a bit of a file turns over"
    # processes and their clocks
    DEATH = "a process dies between two of its steps"
    DEATH_AT_A_STEP = "a process dies in place of a step that it was about to make"
    DEATH_AT_A_LETTER = "a process dies in the middle of a step, having sent some of its letters"
    DEATH_AT_A_DISK_CALL = "a process dies in the middle of its work on the disk"
    POWER_CUT = "every process dies at once"
    FREEZE = "a process stands still while its clock goes on"
    PAUSE = "a process stands still and its clock with it, as in a paused virtual machine"
    CLOCK_DRIFT = "a process starts whose clock is at least 2 % too fast or too slow"
    WALL_CLOCK_FORWARD = "a wall clock jumps forward"
    WALL_CLOCK_BACK = "a wall clock jumps back"
    # the group
    MEMBER_REPLACED = "a member is removed and another one added"


#: how often each has occurred
Faults = Counter[Fault]
