"""What every servicer stands on: submit a change, or read at a revision. Parsing and rendering stay outside."""

import hashlib
from dataclasses import dataclass
from datetime import datetime

from google.protobuf.message import Message
from runway.v1 import common_pb2

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
    """What a change came to. `dry`: it was only checked."""

    state: State
    result: Result
    revision: int
    dry: bool = False


class Plane:
    """The node as servicers see it."""

    def __init__(self, node: Node[State, Command]) -> None:
        self._node = node

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
        return Outcome(state=self._node.state, result=answer.result, revision=answer.revision)

    async def read(self, options: common_pb2.ReadOptions) -> State:
        """The state, at least as fresh as asked for."""
        if options.min_revision:
            await self._node.at_least(options.min_revision, READ_WAIT_S)
        return self._node.state

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
