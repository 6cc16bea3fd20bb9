"""Every bound of the application layer, each with why it is what it is."""

DIGEST_CHARS_MAX = 64
"""SHA-256 in hexadecimal."""

ACTOR_CHARS_MAX = 200
"""A service account's name or an e-mail address; kept with every event."""

REASON_CHARS_MAX = 2_000
"""A paragraph; kept with every event, read by people."""

QUEUE_COMMANDS_MAX = 10_000
"""About a second of commands at full speed: longer waits would outlive the callers' deadlines."""

BATCH_EVENTS_MAX = 2_000
"""Events appended in one transaction: past some hundred the commit's cost is shared out, and a batch should
stay well under the time of a heartbeat."""

PAGE_RECORDS = 2_000
"""Records read at once in recovery and catch-up: some hundred kilobytes to a megabyte."""

VERIFY_RECORDS_MAX = 50_000
"""Entries before the snapshot whose chain is checked before a start is done: half a second in the database."""

VERIFY_PAGE_RECORDS = 20_000
"""Older entries are checked beside the service, in pages of a quarter of a second each."""

VERIFY_PAUSE_S = 0.5
"""Between those pages, so that the check takes a third of one core at most."""

SNAPSHOT_EVERY_EVENTS = 1_000
"""Twice so many events are replayed for an answer as of the past, at most, beside decoding a snapshot: some 50 ms."""

SNAPSHOT_PAUSE_S_MIN = 3.0
"""At full speed 1,000 events pass in a tenth of a second; encoding the state that often would show in the answers."""

HISTORY_NEAR_EVENTS = 1_000_000
"""So far back from the newest snapshot those at `SNAPSHOT_EVERY_EVENTS` are kept; a year of a fleet of 5,000 models."""

HISTORY_FAR_EVERY_EVENTS = 50_000
"""Beyond that one of so many events is kept: such an answer takes a second or two."""

HISTORY_BYTES_MAX = 2**30
"""Of all snapshots together. If the fleet is so large that they take more, they stand further apart."""

HISTORY_TAIL_EVENTS_MAX = 200_000
"""Replayed for one answer at most, some seconds; without a usable snapshot that near the answer is refused."""

SNAPSHOTS_TO_FALL_BACK = 3
"""The newest and two more are kept in any case, should one be unreadable."""

PAST_STATES_MAX = 4
"""Past states kept in memory: who compares two moments asks for both several times. One takes some 150 MB at 5,000
models with a long history."""

PAST_BUILDS_WAITING_MAX = 16
"""One past state is built at a time, a fifth of a second each; further callers would wait past their deadlines."""

SNAPSHOT_BYTES_MAX = 2**31
"""Uncompressed; 5,000 models with their history take tens of megabytes. Guards against a broken blob."""

TICK_S = 1.0
"""How often what is due by itself is looked for; leases and cooldowns are minutes, so a second is prompt."""

TICK_COMMANDS_MAX = 500
"""What is left over is due at the next tick; callers' commands come in between."""

HEARTBEAT_S = 0.5
"""A quarter of the silence after which a leader is taken for frozen."""

WRITER_STALL_S_MAX = 20.0
"""A pass of the writer that takes longer is stuck (an append gives up after 15 s): let somebody else lead."""

RETRY_S_MIN = 0.05
RETRY_S_MAX = 1.0
"""Between attempts to lead again: a restarted Postgres is back in well under a second, one that is away for
long should not be hammered."""

START_WAIT_S_MAX = 30.0
"""How long the first start tries to reach its database: one that starts at the same time is there by then, a
wrong address or a missing right never is."""

STORE_WAIT_S_MAX = 5.0
"""How long commands wait for a database that went away before their callers are told: a restart fits in."""

RING_EVENTS_MAX = 10_000
"""Events kept in memory for watchers: five seconds at 2,000 a second. One that falls further behind starts over from
the log."""

WATCH_PAGE_EVENTS_MAX = 500
"""Events handed to a watcher at once."""

WATCH_BACKLOG_EVENTS_MAX = 100_000
"""How far back a watcher may begin; beyond it, taking the items anew is cheaper than all their changes."""

WATCH_PROGRESS_S = 5.0
"""A watcher hears at least this often how far the log is, so that it can tell silence from a broken
stream."""

WATCH_PROGRESS_EVENTS = 5_000
"""A watcher that wants none of this many events hears how far the log is: to resume there costs nothing. Fewer than the
ring holds, see `app/watch.py`."""

WATCHERS_MAX = 1_000
"""Each costs a task and a cursor; a console opens one."""

WATCH_WAKE_S = 0.000_2
"""What waking one watcher costs, about: a task's turn and a write on its stream. Measured at 0.1 ms."""

WATCH_LINGER_S_MIN = 0.005
"""Changes that come within this time of the last ones are told together; the first after a silence is told at once."""

WATCH_LINGER_S_MAX = 0.1
"""Five hundred watchers that all want everything hear ten times a second."""

WATCH_WAKES_AT_ONCE = 50
"""Watchers woken before others get a turn: some milliseconds."""
