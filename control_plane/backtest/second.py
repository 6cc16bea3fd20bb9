"""A second process that looks at three models of five: looks are nearly all the work of a run, and each stands alone.

It is forked, so that it shares the recording with the first and copies nothing. Only whoever owns its process may do
that (`job`, a benchmark): a fork of a process with threads of gRPC may hang. A look at one model is the same, bit for
bit, whoever else is looked at with it, so a run comes out the same with and without.
"""

import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from multiprocessing.connection import Connection

import msgspec

from control_plane.backtest.contenders import Look
from control_plane.backtest.world import Trained, World
from control_plane.core.staleness.evaluation import evaluate_fleet
from control_plane.core.staleness.policy import StalenessPolicy
from control_plane.core.staleness.verdict import Evaluation

CLOSE_S_MAX = 5.0
"""The second process only waits for questions; it ends at once."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Evaluation])


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A model that is due. `number` is the state's number of what serves."""

    serving: Trained
    number: int
    since: datetime
    policy: StalenessPolicy


def look_at(world: World, question: Question, now: datetime) -> Look:
    """Gather the evidence of one model."""
    evidence = world.evidence(question.serving, question.since, question.policy, now)
    if evidence.model_version != question.number:
        evidence = replace(evidence, model_version=question.number)
    return Look(model_id=question.serving.model_id, policy=question.policy, evidence=evidence)


def evaluated(world: World, questions: Sequence[Question], now: datetime) -> list[Evaluation]:
    """Look at models and evaluate them together."""
    looks = [look_at(world, question, now) for question in questions]
    return evaluate_fleet([(look.policy, look.evidence) for look in looks], now)


class Second:
    """The second process; close it."""

    def __init__(self, world: World) -> None:
        context = multiprocessing.get_context("fork")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_answer, args=(world, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def evaluated(
        self, world: World, questions: Sequence[Question], now: datetime, mine: Sequence[bool]
    ) -> list[Evaluation]:
        """As the function, those that are not `mine` by the second process meanwhile; in the order of the questions."""
        other = [question for question, own in zip(questions, mine, strict=True) if not own]
        if other:
            self._ours.send((other, now))
        ours = iter(evaluated(world, [q for q, own in zip(questions, mine, strict=True) if own], now))
        theirs = iter(_decoder.decode(self._ours.recv_bytes()) if other else ())
        return [next(ours if own else theirs) for own in mine]

    def close(self) -> None:
        """End it."""
        self._ours.close()
        self._process.join(CLOSE_S_MAX)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _answer(world: World, connection: "Connection") -> None:
    while True:
        try:
            questions, now = connection.recv()
        except EOFError:
            return
        connection.send_bytes(_encoder.encode(evaluated(world, questions, now)))
