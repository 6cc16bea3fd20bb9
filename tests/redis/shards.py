"""Workers that share a speed view: each has the rows of some ids, and publishes what it makes of them."""

from collections.abc import Sequence

import numpy as np

from control_plane.adapters.redis.speed_view import RedisSpeedView
from control_plane.app.speed_view import ShardHour, merged
from control_plane.core.ground_truth.ids import NO_HOUR
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.partials import pack
from control_plane.core.ground_truth.speed import SpeedView
from tests.ground_truth.joins import Answer, feed, hour_answer
from tests.reference.join import Arrival

SHARDS = 3


def shard_hours(speed: SpeedView, model_id: str, spec: LabelSpec, shard: str, computed_us: int) -> list[ShardHour]:
    """What a worker has to say of a model."""
    return [
        ShardHour(
            model_id=model_id,
            label_type=spec.label_type,
            hour=hour,
            shard=shard,
            computed_us=computed_us,
            rate=speed.rate(model_id, hour),
            packed={number: pack(one) for number, one in (speed.partials(model_id, spec, hour, 0) or {}).items()},
        )
        for hour in speed.hours(model_id)
    ]


def shared_answers(
    url: str, histories: Sequence[Sequence[Arrival]], spec: LabelSpec, seed: int = 5
) -> list[tuple[Answer, int]]:
    """Rows go to shards by id; after each row its shard publishes, and everything is written again in any order."""
    order = np.random.default_rng(seed)
    view = RedisSpeedView(url)
    answers = []
    for number, history in enumerate(histories):
        model_id = f"m{number}"
        speeds = [SpeedView() for _ in range(SHARDS)]
        written: list[ShardHour] = []
        for step, row in enumerate(history):
            shard = row.id[-1] % SHARDS
            feed(speeds[shard], [row], model_id)
            written += shard_hours(speeds[shard], model_id, spec, f"facts-{shard}", step)
        again = written * 2
        view.write([again[at] for at in order.permutation(len(again))])
        found = view.read(model_id, spec.label_type, 0, 0)
        hours = sorted({one.hour for one in written})
        for hour in hours:
            found += view.read(model_id, spec.label_type, hour, hour + 1)
        answer = {
            (hour, version): hour_answer(partial)
            for hour, versions in merged(found).items()
            for version, partial in versions.items()
        }
        orphans = sum(sum(one.orphans(model_id, spec.label_type, NO_HOUR, 10**6).values()) for one in speeds)
        answers.append((answer, orphans))
    view.close()
    return answers
