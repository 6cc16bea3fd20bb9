"""What every servicer stands on: submit a change, or read at a revision. Parsing and rendering stay outside."""

import hashlib
from dataclasses import dataclass
from datetime import datetime

from google.protobuf.message import Message
from runway.v1 import common_pb2

from control_plane.api.convert.common import instant_from
from control_plane.api.errors import invalid
from control_plane.app.node import Node
from control_plane.app.replica import Submission
from control_plane.core.commands import Command, Result
from control_plane.core.decide import decide
from control_plane.core.errors import Invalid, Reason, Violation
from control_plane.core.state import State

READ_WAIT_S = 5.0
"""How long a read waits for the revision it asked for; beyond that the caller should know."""

ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a change came to. `dry`: it was only checked. `repeated`: it happened when this request came first."""

    state: State
    result: Result
    revision: int
    dry: bool = False
    repeated: bool = False


class Plane:
    """The node as servicers see it."""

    def __init__(self, node: Node[State, Command]) -> None:
        self._node = node

    @property
    def state(self) -> State:
        """The newest state. Raises Unavailable(NOT_LEADER)."""
        return self._node.state

    def now(self) -> datetime:
        """The control plane's time."""
        return self._node.now()

    async def submit(self, command: Command, mutation: common_pb2.Mutation, digest: str = "") -> Outcome:
        """Decide and make durable; with `validate_only` decide only.

        `digest` tells requests of one request id apart where the command cannot, see `digest_of`.
        """
        if mutation.validate_only:
            state = self._node.state
            decision = decide(state, command, self._node.now())
            return Outcome(state=state, result=decision.result, revision=state.revision, dry=True)
        answer = await self._node.submit(
            Submission(
                command=command,
                request_id=mutation.request_id or None,
                actor=mutation.actor or ANONYMOUS,
                reason=mutation.reason,
                digest=digest,
            )
        )
        return Outcome(state=self._node.state, result=answer.result, revision=answer.revision, repeated=answer.repeated)

    async def before(self, outcome: Outcome) -> State:
        """The state that a repeated request met when it came first: what it changed can only be told from there."""
        await self._node.durable(outcome.revision)
        return await self._node.history.state_before(outcome.revision)

    async def read(self, options: common_pb2.ReadOptions) -> State:
        """The state, at least as fresh as asked for, or that of a moment of the past. It is shared: nobody changes it.

        Raises:
            Invalid: the moment lies in the future, or before anything happened.
            Unavailable(REVISION_NOT_REACHED): `min_revision` is not there yet.
            Refused(HISTORY_NOT_KEPT): it is too far from what is kept.
        """
        if options.min_revision:
            await self._node.at_least(options.min_revision, READ_WAIT_S)
        match options.WhichOneof("as_of"):
            case "as_of_revision":
                return await self._at_revision(options.as_of_revision)
            case "as_of_time":
                return await self._at_time(instant_from(options.as_of_time, "read.as_of_time"))
            case _:
                return self._node.state

    def moment(self, state: State, options: common_pb2.ReadOptions) -> datetime:
        """The moment an answer from `state` speaks of: now, or the one that was asked for."""
        match options.WhichOneof("as_of"):
            case "as_of_revision":
                return state.clock or state.at
            case "as_of_time":
                return instant_from(options.as_of_time, "read.as_of_time")
            case _:
                return self._node.now()

    async def _at_revision(self, revision: int) -> State:
        newest = self._node.state.revision
        if revision < 1:
            raise invalid("read.as_of_revision", "range", "revisions count from 1, the first event")
        if revision > newest:
            # Waiting for it is what `min_revision` is for: an answer of the past that is not there yet is a slip.
            raise Invalid(
                Reason.INVALID_ARGUMENT,
                Violation(
                    field="read.as_of_revision",
                    rule="past",
                    message=f"revision {revision} is not there yet, the newest is {newest}: ask as of that one, or "
                    "wait for this one with min_revision",
                ),
                revision=str(newest),
            )
        if revision == newest:
            return self._node.state
        await self._node.durable(revision)
        return await self._node.history.state_at(revision)

    async def _at_time(self, at: datetime) -> State:
        now, state = self._node.now(), self._node.state
        if at > now:
            raise invalid(
                "read.as_of_time", "past", f"{at.isoformat()} lies in the future: it is {now.isoformat()} here"
            )
        if at >= state.at and state.revision:
            return state
        revision = await self._node.history.revision_at(at)
        if revision < 1:
            raise invalid(
                "read.as_of_time", "range", f"nothing had happened by {at.isoformat()}: `runway events` shows the first"
            )
        return await self._at_revision(min(revision, self._node.revision))

    async def release(self) -> None:
        """Wait until everything that could have been seen just now is in the log; free when nothing is on its way.

        Called in one place, the interceptors, right after a method has rendered its reply or refused: so no answer ever
        shows what might still be lost.
        """
        await self._node.durable(self._node.state.revision)


def digest_of(request: Message) -> str:
    """A digest of a request without its `mutation`: the same for the same request sent again."""
    bare = type(request)()
    bare.CopyFrom(request)
    bare.ClearField("mutation")
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


def require_reason(mutation: common_pb2.Mutation, what: str) -> None:
    """Raise `Invalid` unless the caller says why."""
    if not mutation.reason.strip():
        raise Invalid(
            Reason.INVALID_ARGUMENT,
            Violation(field="mutation.reason", rule="required", message=f"say why: {what} is kept in the audit log"),
        )
