"""The speed view in Redis, shared by all processes that join and by all that read.

Layout: a hash per (model, label, hour), `runway:speed:<model>\\t<label>\\t<hour>`. Field `<shard>:<version>` is the
rate (double, big-endian) and the packed partial; field `<shard>/at` says when they were computed. Only partials are
kept, some hundred bytes an hour: a key per joined row would be 894 GB a day at 10 billion predictions.

Values are absolute, and a script replaces all of a shard's fields of an hour at once, unless what is there is newer: a
reader sees no half of an hour, and a repeat, or a worker that was thought dead, changes nothing.
"""

import struct
from collections.abc import Sequence

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from control_plane.app.speed_view import TTL_S, ShardHour
from control_plane.core.errors import Reason, Unavailable

PREFIX = "runway:speed:"
ANSWER_S = 2.0
"""How long a server may take to answer."""
HOURS_READ_AT_ONCE = 512

_WRITE = """
local before = redis.call('HGET', KEYS[1], ARGV[1] .. '/at')
if before and tonumber(before) > tonumber(ARGV[3]) then return 0 end
for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
  if string.sub(name, 1, #ARGV[1] + 1) == ARGV[1] .. ':' then redis.call('HDEL', KEYS[1], name) end
end
redis.call('HSET', KEYS[1], ARGV[1] .. '/at', ARGV[3])
for i = 4, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[1] .. ':' .. ARGV[i], ARGV[i + 1]) end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""


class RedisSpeedView:
    """`SharedSpeedView` on a Redis or Valkey server."""

    def __init__(self, url: str, ttl_s: float = TTL_S) -> None:
        """Connects when first used.

        Args:
            url: `redis://host:port/0`, `rediss://` or `unix://`.
        """
        self._redis = redis.Redis.from_url(
            url,
            socket_timeout=ANSWER_S,
            socket_connect_timeout=ANSWER_S,
            retry=Retry(NoBackoff(), 1),  # a connection that was closed meanwhile; whoever waits longer is the caller
        )
        self._ttl_ms = max(1, round(ttl_s * 1_000))

    def marker(self, shard: str) -> str:
        """See `SharedSpeedView`."""
        try:
            found = self._redis.get(f"{PREFIX}marker:{shard}")
        except redis.RedisError as error:
            raise _unavailable(error) from error
        return found.decode() if isinstance(found, bytes) else ""

    def set_marker(self, shard: str, text: str) -> None:
        """See `SharedSpeedView`."""
        try:
            self._redis.set(f"{PREFIX}marker:{shard}", text, px=self._ttl_ms)
        except redis.RedisError as error:
            raise _unavailable(error) from error

    def write(self, hours: Sequence[ShardHour]) -> None:
        """See `SharedSpeedView`."""
        try:
            with self._redis.pipeline(transaction=False) as pipeline:
                for one in hours:
                    fields: list[str | bytes] = []
                    for version, packed in one.packed.items():
                        fields += [str(version), struct.pack(">d", one.rate) + packed]
                    key = _key(one.model_id, one.label_type, one.hour)
                    pipeline.eval(_WRITE, 1, key, one.shard, self._ttl_ms, one.computed_us, *fields)
                pipeline.execute()
        except redis.RedisError as error:
            raise _unavailable(error) from error

    def read(self, model_id: str, label_type: str, first_hour: int, end_hour: int) -> list[ShardHour]:
        """See `SharedSpeedView`."""
        found: list[ShardHour] = []
        try:
            for start in range(first_hour, end_hour, HOURS_READ_AT_ONCE):
                hours = range(start, min(start + HOURS_READ_AT_ONCE, end_hour))
                with self._redis.pipeline(transaction=False) as pipeline:
                    for hour in hours:
                        pipeline.hgetall(_key(model_id, label_type, hour))
                    answers = pipeline.execute()
                for hour, fields in zip(hours, answers, strict=True):
                    found += _shard_hours(model_id, label_type, hour, fields)
        except redis.RedisError as error:
            raise _unavailable(error) from error
        return found

    def close(self) -> None:
        """See `SharedSpeedView`."""
        self._redis.close()


def _key(model_id: str, label_type: str, hour: int) -> str:
    return f"{PREFIX}{model_id}\t{label_type}\t{hour}"


def _shard_hours(model_id: str, label_type: str, hour: int, fields: dict[bytes, bytes]) -> list[ShardHour]:
    """The fields of one hash, by shard."""
    computed = {name[:-3].decode(): int(value) for name, value in fields.items() if name.endswith(b"/at")}
    packed: dict[str, dict[int, bytes]] = {}
    rates: dict[str, float] = {}
    for name, value in fields.items():
        shard, colon, version = name.decode().rpartition(":")
        if colon and shard in computed:
            rates[shard] = struct.unpack(">d", value[:8])[0]
            packed.setdefault(shard, {})[int(version)] = value[8:]
    return [
        ShardHour(
            model_id=model_id,
            label_type=label_type,
            hour=hour,
            shard=shard,
            computed_us=computed[shard],
            rate=rates[shard],
            packed=dict(sorted(versions.items())),
        )
        for shard, versions in sorted(packed.items())
    ]


def _unavailable(error: redis.RedisError) -> Unavailable:
    return Unavailable(Reason.STORE_UNAVAILABLE, f"Redis: {str(error)[:200]}")
