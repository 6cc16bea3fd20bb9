-- Every statement the control plane sends, by name. `sql.py` reads this file.

-- name: layout
SELECT layout FROM runway.leadership

-- name: head
SELECT seq, hash FROM runway.events ORDER BY seq DESC LIMIT 1

-- name: append
-- One statement, so one transaction: nobody can become leader between the look at the epoch and the insert. The
-- share lock makes the next leader's epoch wait for us; after it, `epoch` no longer matches and nothing is inserted.
WITH leader AS MATERIALIZED (
    SELECT 1
    FROM runway.leadership
    WHERE epoch = %(epoch)s
      AND coalesce((SELECT seq FROM runway.events ORDER BY seq DESC LIMIT 1), 0) = %(after_seq)s
    FOR SHARE
),
inserted AS (
    INSERT INTO runway.events (
        seq, epoch, kind, version, at, actor, reason, request_id, request_digest, result, payload, prev_hash, hash
    )
    SELECT
        batch.seq, %(epoch)s, batch.kind, batch.version, batch.at, batch.actor, batch.reason, batch.request_id,
        batch.request_digest, batch.result, batch.payload::json, batch.prev_hash, batch.hash
    FROM leader, unnest(
        %(seq)b::bigint[], %(kind)b::text[], %(version)b::integer[], %(at)b::timestamptz[], %(actor)b::text[],
        %(reason)b::text[], %(request_id)b::text[], %(request_digest)b::text[], %(result)b::text[],
        %(payload)b::text[], %(prev_hash)b::bytea[], %(hash)b::bytea[]
    ) AS batch (
        seq, kind, version, at, actor, reason, request_id, request_digest, result, payload, prev_hash, hash
    )
    RETURNING 1
)
SELECT count(*) FROM inserted

-- name: read
SELECT
    seq, epoch, kind, version, at, actor, reason, request_id, request_digest, result, payload::text, prev_hash, hash
FROM runway.events
WHERE seq > %(after_seq)s
ORDER BY seq
LIMIT %(limit)s

-- name: seq_at
-- Twenty look-ups by primary key in a million events. A hole in the log ends it early; the replay then says where.
WITH RECURSIVE halves (low, high) AS (
    SELECT 0::bigint, coalesce((SELECT seq FROM runway.events ORDER BY seq DESC LIMIT 1), 0)
    UNION ALL
    SELECT
        CASE WHEN event.at <= %(at)s THEN half.middle ELSE half.low END,
        CASE WHEN event.at <= %(at)s THEN half.high ELSE half.middle - 1 END
    FROM (SELECT low, high, (low + high + 1) / 2 AS middle FROM halves WHERE low < high) AS half
    JOIN runway.events AS event ON event.seq = half.middle
)
SELECT max(low) FROM halves

-- name: verify
-- The rule of app/chain.py once more, where the rows are: 100,000 entries in a fraction of a second.
WITH entries AS (
    SELECT
        seq, kind, version, prev_hash, hash,
        lag(seq) OVER (ORDER BY seq) AS seq_before,
        lag(hash) OVER (ORDER BY seq) AS hash_before,
        sha256(prev_hash || convert_to(concat_ws(
            E'\x1f', seq, epoch, kind, version, (extract(epoch FROM at) * 1000000)::bigint, actor, reason,
            request_id, request_digest, result, payload::text
        ), 'UTF8')) AS hash_now
    FROM runway.events
    WHERE seq >= %(after_seq)s AND seq <= %(to_seq)s
)
SELECT
    seq, coalesce(seq_before, %(after_seq)s), kind, version,
    prev_hash <> coalesce(hash_before, ''::bytea) AS chain_broken,
    hash <> hash_now AS changed
FROM entries
WHERE seq > %(after_seq)s
  AND (
    seq <> coalesce(seq_before, %(after_seq)s) + 1
    OR prev_hash <> coalesce(hash_before, ''::bytea)
    OR hash <> hash_now
    OR version > %(version_max)s
  )
ORDER BY seq
LIMIT 1

-- name: open_epoch
UPDATE runway.leadership SET epoch = epoch + 1 RETURNING epoch

-- name: lock_leadership
SELECT pg_advisory_lock(%(key)s)

-- name: heartbeat
SELECT 1

-- name: save_snapshot
INSERT INTO runway.snapshots (seq, hash, codec, blob)
VALUES (%(seq)s, %(hash)s, %(codec)s, %(blob)b)
ON CONFLICT (seq) DO UPDATE SET hash = excluded.hash, codec = excluded.codec, blob = excluded.blob

-- name: kept_snapshots
SELECT seq, octet_length(blob) FROM runway.snapshots ORDER BY seq

-- name: drop_snapshots
DELETE FROM runway.snapshots WHERE seq = ANY(%(seqs)s::bigint[])

-- name: newest_snapshot
SELECT seq, hash, codec, blob FROM runway.snapshots WHERE seq < %(before_seq)s ORDER BY seq DESC LIMIT 1

-- name: lead_in
SELECT 1 FROM runway.leadership WHERE epoch = %(epoch)s FOR SHARE

-- name: load_cursors
SELECT destination, since, low, above::text, last_failure, last_delivered_at FROM runway.cursors

-- name: save_cursor
INSERT INTO runway.cursors (destination, since, low, above, last_failure, last_delivered_at)
VALUES (%(destination)s, %(since)s, %(low)s, %(above)s::json, %(last_failure)s, %(last_delivered_at)s)
ON CONFLICT (destination) DO UPDATE SET
    since = excluded.since, low = excluded.low, above = excluded.above, last_failure = excluded.last_failure,
    last_delivered_at = excluded.last_delivered_at

-- name: forget_cursor
DELETE FROM runway.cursors WHERE destination = %(destination)s

-- name: load_told
SELECT key, told::text FROM runway.told WHERE destination = %(destination)s

-- name: save_told
INSERT INTO runway.told (destination, key, told) VALUES (%(destination)s, %(key)s, %(told)s::json)
ON CONFLICT (destination, key) DO UPDATE SET told = excluded.told

-- name: drop_told
DELETE FROM runway.told WHERE destination = %(destination)s AND key = ANY(%(keys)s::text[])

-- name: forget_told
DELETE FROM runway.told WHERE destination = %(destination)s
