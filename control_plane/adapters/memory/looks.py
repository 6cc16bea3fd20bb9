"""Looks in memory, held to the same contract suite as those on disk."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from control_plane.app.looks import Look
from control_plane.core.ids import ModelId
from control_plane.core.staleness.evidence import ScoreAt
from control_plane.core.staleness.verdict import Evaluation


class MemoryLooks:
    """Implements `app.looks.Looks`."""

    def __init__(self) -> None:
        self._looks: dict[ModelId, dict[datetime, Evaluation]] = {}
        self._evidence: dict[str, tuple[datetime, bytes]] = {}

    def record(self, looks: Sequence[Look], evidence: Mapping[str, bytes]) -> None:
        """See `Looks`."""
        for one in looks:
            self._looks.setdefault(one.model_id, {})[one.evaluation.at] = one.evaluation
        if looks:
            recorded = max(one.evaluation.at for one in looks)
            for digest, data in evidence.items():
                self._evidence.setdefault(digest, (recorded, data))

    def between(self, model_id: ModelId, start: datetime, end: datetime, limit: int) -> list[Look]:
        """See `Looks`."""
        made = self._made(model_id)
        newest = sorted((at for at in made if start <= at < end), reverse=True)[:limit]
        return [Look(model_id=model_id, evaluation=made[at]) for at in newest]

    def thinned(self, model_id: ModelId, start: datetime, end: datetime, points: int) -> list[Look]:
        """See `Looks`."""
        span = max(end - start, end.resolution)
        newest: dict[int, Look] = {}
        for one in reversed(self.between(model_id, start, end, len(self._looks.get(model_id, {})))):
            newest[(one.evaluation.at - start) * points // span] = one
        return [newest[place] for place in sorted(newest, reverse=True)]

    def first_at(self, model_id: ModelId, start: datetime, end: datetime) -> datetime | None:
        """See `Looks`."""
        return min((at for at in self._made(model_id) if start <= at < end), default=None)

    def made_at(self, model_id: ModelId, at: datetime) -> Look | None:
        """See `Looks`."""
        found = self._looks.get(model_id, {}).get(at)
        return None if found is None else Look(model_id=model_id, evaluation=found)

    def latest(self) -> dict[ModelId, Evaluation]:
        """See `Looks`."""
        whole = ((model_id, self._made(model_id)) for model_id in list(self._looks))
        return {model_id: made[max(made)] for model_id, made in whole if made}

    def scores(self, model_id: ModelId, version: int, before: datetime, points: int) -> tuple[ScoreAt, ...]:
        """See `Looks`."""
        made = self._made(model_id)
        times = sorted(at for at, one in made.items() if at < before and one.version == version)
        if not times:
            return ()
        span = times[-1] - times[0] + times[0].resolution
        newest = {(at - times[0]) * points // span: at for at in times}
        return tuple(ScoreAt(at=at, score=made[at].score) for _, at in sorted(newest.items()))

    def evidence(self, digest: str) -> bytes | None:
        """See `Looks`."""
        found = self._evidence.get(digest)
        return None if found is None else found[1]

    def expire(self, before: datetime) -> int:
        """See `Looks`."""
        gone = 0
        for made in self._looks.values():
            for at in [at for at in made if at < before]:
                del made[at]
                gone += 1
        self._evidence = {digest: kept for digest, kept in self._evidence.items() if kept[0] >= before}
        return gone

    def close(self) -> None:
        """See `Looks`."""

    def _made(self, model_id: ModelId) -> dict[datetime, Evaluation]:
        """A copy, so that one thread reads while another writes."""
        return dict(self._looks.get(model_id, {}))
