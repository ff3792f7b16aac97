"""Which revision to compact to, so that changes are remembered for a while and never without bound."""

from __future__ import annotations

from collections import deque


class Retention:
    """What the leader remembers about how old revisions are.

    Args:
        keep_s: changes younger than this are kept, up to `revisions_max`; 0 keeps everything.
        revisions_max: so many changes are kept at most.
    """

    def __init__(self, keep_s: float, revisions_max: int) -> None:
        self._keep_s, self._revisions_max = keep_s, revisions_max
        #: (time, revision reached then), a tenth of the retention apart
        self._marks: deque[tuple[float, int]] = deque()
        self._old = 0
        self._due = 0.0

    def revision_to_compact(self, revision: int, compacted: int, clock: float) -> int | None:
        """Returns the revision to which to compact now; None when nothing is to be done yet.

        Args:
            revision: the newest; compacted: the oldest that is remembered; clock: seconds, of any epoch.
        """
        if not self._keep_s:
            return None
        step_s = self._keep_s / 10
        if not self._marks or clock - self._marks[-1][0] >= step_s:
            self._marks.append((clock, revision))
        while self._marks and clock - self._marks[0][0] >= self._keep_s:
            self._old = max(self._old, self._marks.popleft()[1])
        wanted = max(self._old, revision - self._revisions_max)
        is_urgent = wanted - compacted > self._revisions_max // 10
        if wanted <= max(compacted, 1) or (clock < self._due and not is_urgent):
            return None
        self._due = clock + step_s
        return wanted
