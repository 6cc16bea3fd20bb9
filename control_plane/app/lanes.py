"""What of a window of the log has been acknowledged, as a cursor keeps it."""

from collections.abc import Iterable


class Acknowledged:
    """Everything up to `low`, and some seqs above it. Seqs may be acknowledged in any order, and twice."""

    def __init__(self, low: int, above: Iterable[tuple[int, int]] = ()) -> None:
        self.low = low
        self._above = {seq for first, last in above for seq in range(first, last + 1) if seq > low}

    def __contains__(self, seq: int) -> bool:
        return seq <= self.low or seq in self._above

    def add(self, seq: int) -> None:
        """It was taken."""
        if seq > self.low:
            self._above.add(seq)
        while self.low + 1 in self._above:
            self.low += 1
            self._above.discard(self.low)

    def ranges(self) -> tuple[tuple[int, int], ...]:
        """Those above `low`, both ends included, ascending.

        >>> some = Acknowledged(3)
        >>> for seq in (5, 9, 6): some.add(seq)
        >>> some.low, some.ranges()
        (3, ((5, 6), (9, 9)))
        """
        found: list[tuple[int, int]] = []
        for seq in sorted(self._above):
            if found and found[-1][1] == seq - 1:
                found[-1] = (found[-1][0], seq)
            else:
                found.append((seq, seq))
        return tuple(found)
