"""StalenessService."""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta

from runway.v1 import common_pb2, staleness_pb2, staleness_pb2_grpc

from control_plane.api.convert.common import PAGE_SIZE_DEFAULT, instant_from, page
from control_plane.api.convert.registry import model_id_from
from control_plane.api.convert.staleness import VERDICTS_FROM, evaluation, staleness, verdict_change
from control_plane.api.interceptors import Context
from control_plane.api.plane import Plane
from control_plane.app.evaluator import Evaluator
from control_plane.app.looks import LOOKS_KEPT, Look, Looks
from control_plane.core.decide import rule_words
from control_plane.core.errors import Invalid, NotFound, Reason, Refused, Violation
from control_plane.core.ids import ModelId
from control_plane.core.outlook import outlook
from control_plane.core.staleness.explain import explain
from control_plane.core.staleness.stored import RULES_VERSION, Replay, replay
from control_plane.core.staleness.verdict import Evaluation, Level
from control_plane.core.state import EPOCH_START, ModelRecord

HOUR = timedelta(hours=1)
TICK = timedelta(microseconds=1)
DIFFERENCE_CHARS = 200

WORST_FIRST = {Level.STALE: 0, Level.AT_RISK: 1, Level.UNKNOWN: 2, Level.FRESH: 3}


class StalenessServicer(staleness_pb2_grpc.StalenessServiceServicer):
    """Parse, submit or read, render."""

    def __init__(self, plane: Plane, evaluator: Evaluator, looks: Looks) -> None:
        self._plane = plane
        self._evaluator = evaluator
        self._looks = looks

    async def GetStaleness(  # noqa: N802
        self, request: staleness_pb2.GetStalenessRequest, context: Context
    ) -> staleness_pb2.GetStalenessResponse:
        """The verdict of one model."""
        state = await self._plane.read(request.read)
        record = state.model(model_id_from(request.model_id))
        shown = staleness(record, self._latest(request.read).get(record.model_id))
        shown.next.extend(outlook(state, record, self._plane.moment(state, request.read)))
        return staleness_pb2.GetStalenessResponse(staleness=shown, revision=state.revision)

    def _latest(self, options: common_pb2.ReadOptions) -> Mapping[ModelId, Evaluation]:
        """The newest evaluations; none of them if the past is asked for, of which only the verdicts' own are kept."""
        return self._evaluator.latest if options.WhichOneof("as_of") is None else {}

    async def ListStaleness(  # noqa: N802
        self, request: staleness_pb2.ListStalenessRequest, context: Context
    ) -> staleness_pb2.ListStalenessResponse:
        """The fleet, worst first; of one verdict the higher score first."""
        state = await self._plane.read(request.read)
        wanted = {VERDICTS_FROM[number] for number in request.verdicts if number in VERDICTS_FROM}
        latest = self._latest(request.read)
        keyed = sorted(
            (_worst_first(record, latest), record)
            for record in state.models.values()
            if (not wanted or record.standing.level in wanted) and request.team in ("", record.facts.team)
        )
        shown, token = page([record for _, record in keyed], [key for key, _ in keyed], request.page)
        return staleness_pb2.ListStalenessResponse(
            staleness=[staleness(record, latest.get(record.model_id)) for record in shown],
            next_page_token=token,
            revision=state.revision,
        )

    async def ExplainStaleness(  # noqa: N802
        self, request: staleness_pb2.ExplainStalenessRequest, context: Context
    ) -> staleness_pb2.ExplainStalenessResponse:
        """Why, how sure, what to do."""
        state = await self._plane.read(request.read)
        record = state.model(model_id_from(request.model_id))
        latest = self._latest(request.read)
        shown = _shown(record, latest)
        sentences = (
            explain(shown)
            if shown is not None
            else [
                f"{record.model_id} has not been evaluated yet: "
                + ("it has no production version." if record.production is None else "no evidence has arrived.")
            ]
        )
        return staleness_pb2.ExplainStalenessResponse(
            staleness=staleness(record, latest.get(record.model_id)),
            sentences=[*sentences, *rule_words.told(record)],
            revision=state.revision,
        )

    async def EvaluateModel(  # noqa: N802
        self, request: staleness_pb2.EvaluateModelRequest, context: Context
    ) -> staleness_pb2.EvaluateModelResponse:
        """Evaluate now."""
        model_id = (
            (await self._plane.read(staleness_pb2.GetStalenessRequest().read))
            .model(model_id_from(request.model_id))
            .model_id
        )
        if not request.mutation.validate_only:
            await self._evaluator.evaluate_now(model_id)
        state = await self._plane.read(staleness_pb2.GetStalenessRequest().read)
        return staleness_pb2.EvaluateModelResponse(
            staleness=staleness(state.model(model_id), self._evaluator.latest.get(model_id)),
            revision=state.revision,
        )

    async def ListVerdictChanges(  # noqa: N802
        self, request: staleness_pb2.ListVerdictChangesRequest, context: Context
    ) -> staleness_pb2.ListVerdictChangesResponse:
        """History of a model's verdict, newest first."""
        state = await self._plane.read(request.read)
        record = state.model(model_id_from(request.model_id))
        return staleness_pb2.ListVerdictChangesResponse(
            changes=[verdict_change(record.model_id, change) for change in reversed(record.verdict_changes)],
            revision=state.revision,
        )

    async def ListEvaluations(  # noqa: N802
        self, request: staleness_pb2.ListEvaluationsRequest, context: Context
    ) -> staleness_pb2.ListEvaluationsResponse:
        """Every look, newest first: thinned, or page by page."""
        state = await self._plane.read(common_pb2.ReadOptions())
        model_id = state.model(model_id_from(request.model_id)).model_id
        start = instant_from(request.start_time, "start_time") if request.HasField("start_time") else EPOCH_START
        end = instant_from(request.end_time, "end_time") if request.HasField("end_time") else self._plane.now() + HOUR
        if end <= start and not request.HasField("end_time"):
            return staleness_pb2.ListEvaluationsResponse()  # from a time that is still to come
        if end <= start:
            message = f"it ends at {end:%Y-%m-%d %H:%M}, not after its start {start:%Y-%m-%d %H:%M}: swap the two"
            raise Invalid(Reason.INVALID_ARGUMENT, Violation(field="end_time", rule="range", message=message))
        if request.points_max:
            looks = await asyncio.to_thread(self._thinned, model_id, start, end, request.points_max)
            return staleness_pb2.ListEvaluationsResponse(evaluations=[evaluation(one.evaluation) for one in looks])
        size = request.page.page_size or PAGE_SIZE_DEFAULT
        before = _before(request.page.page_token) or end
        looks = await asyncio.to_thread(self._looks.between, model_id, start, min(before, end), size + 1)
        more = looks[size - 1].evaluation.at.isoformat() if len(looks) > size else ""
        return staleness_pb2.ListEvaluationsResponse(
            evaluations=[evaluation(one.evaluation) for one in looks[:size]], next_page_token=more
        )

    def _thinned(self, model_id: ModelId, start: datetime, end: datetime, points: int) -> list[Look]:
        """The newest look of each stretch, of the time between the first and the last look that there are."""
        newest = self._looks.between(model_id, start, end, 1)
        first = self._looks.first_at(model_id, start, end)
        if not newest or first is None:
            return []
        return self._looks.thinned(model_id, first, newest[0].evaluation.at + TICK, points)

    async def ReplayEvaluation(  # noqa: N802
        self, request: staleness_pb2.ReplayEvaluationRequest, context: Context
    ) -> staleness_pb2.ReplayEvaluationResponse:
        """Make a look again from its evidence."""
        state = await self._plane.read(common_pb2.ReadOptions())
        record = state.model(model_id_from(request.model_id))
        recorded = await self._recorded(record, request)
        if not recorded.evidence_sha256:
            message = (
                f"the evidence of the look at {recorded.at:%Y-%m-%d %H:%M:%S} was not kept: it is kept of looks that "
                "may change a verdict, and of the first of each day"
            )
            raise Refused(Reason.EVIDENCE_NOT_KEPT, message, model_id=record.model_id)
        data = await asyncio.to_thread(self._looks.evidence, recorded.evidence_sha256)
        if data is None:
            message = f"the evidence {recorded.evidence_sha256[:16]}... is not here: it is kept {LOOKS_KEPT.days} days"
            raise Refused(Reason.EVIDENCE_NOT_KEPT, message, model_id=record.model_id)
        found = await asyncio.to_thread(replay, data, recorded)
        return staleness_pb2.ReplayEvaluationResponse(
            recorded=evaluation(recorded),
            replayed=evaluation(found.evaluation),
            identical=not found.differences,
            differences=[_difference(name, found, recorded) for name in found.differences],
            evidence_sha256=recorded.evidence_sha256,
        )

    async def _recorded(self, record: ModelRecord, request: staleness_pb2.ReplayEvaluationRequest) -> Evaluation:
        """What the log or the looks say."""
        if request.WhichOneof("which") == "revision":
            for change in record.verdict_changes:
                if change.revision == request.revision:
                    return change.evaluation
            have = ", ".join(str(change.revision) for change in record.verdict_changes[-5:]) or "none"
            raise NotFound(
                Reason.EVALUATION_NOT_FOUND,
                f"no verdict of {record.model_id} changed at revision {request.revision}: its last changes are {have}",
                model_id=record.model_id,
            )
        at = instant_from(request.evaluated_at, "evaluated_at")
        look = await asyncio.to_thread(self._looks.made_at, record.model_id, at)
        if look is None:
            raise NotFound(
                Reason.EVALUATION_NOT_FOUND,
                f"there was no look at {record.model_id} at {at.isoformat()}: `runway staleness history "
                f"{record.model_id}` lists them",
                model_id=record.model_id,
            )
        return look.evaluation


def _difference(name: str, found: Replay, recorded: Evaluation) -> str:
    """A field with both values, short."""
    then, now = (str(getattr(one, name))[:DIFFERENCE_CHARS] for one in (recorded, found.evaluation))
    rules = f" (made by rules {found.rules}, these are {RULES_VERSION})" if found.rules != RULES_VERSION else ""
    return f"{name} was {then}, is {now}{rules}"


def _before(token: str) -> datetime | None:
    if not token:
        return None
    try:
        return datetime.fromisoformat(token)
    except ValueError as error:
        says = Violation(field="page.page_token", rule="page_token", message="this is no token of this list")
        raise Invalid(Reason.INVALID_ARGUMENT, says) from error


def _worst_first(record: ModelRecord, latest: Mapping[ModelId, Evaluation]) -> str:
    found = _shown(record, latest)
    score = found.score if found is not None else 0.0
    return f"{WORST_FIRST[record.standing.level]}:{1 - score:.6f}:{record.model_id}"


def _shown(record: ModelRecord, latest: Mapping[ModelId, Evaluation]) -> Evaluation | None:
    """The newest evaluation known, else the one that brought the verdict about."""
    found = latest.get(record.model_id)
    return found if found is not None else record.standing.evaluation
