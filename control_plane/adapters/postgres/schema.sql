-- The control plane's tables. Applied at every start; each statement may run again.
-- `payload` and `result` are text checked to be JSON by the leader, not jsonb: the hash covers the bytes as they
-- were written. `seq` is assigned by the leader: a sequence would leave gaps and commit out of order.

CREATE SCHEMA IF NOT EXISTS runway;

CREATE TABLE IF NOT EXISTS runway.events (
    seq            bigint      PRIMARY KEY CHECK (seq > 0),
    epoch          bigint      NOT NULL,
    kind           text        NOT NULL,
    version        integer     NOT NULL,
    at             timestamptz NOT NULL,
    actor          text        NOT NULL,
    reason         text        NOT NULL,
    request_id     text        NOT NULL,
    request_digest text        NOT NULL,
    result         text        NOT NULL,
    payload        json        NOT NULL,
    prev_hash      bytea       NOT NULL,
    hash           bytea       NOT NULL
);

-- One row for ever: the current epoch and the layout of these tables.
CREATE TABLE IF NOT EXISTS runway.leadership (
    id     boolean PRIMARY KEY DEFAULT true CHECK (id),
    epoch  bigint  NOT NULL,
    layout integer NOT NULL
);
INSERT INTO runway.leadership (epoch, layout) VALUES (0, 1) ON CONFLICT DO NOTHING;

CREATE TABLE IF NOT EXISTS runway.snapshots (
    seq   bigint  PRIMARY KEY,
    hash  bytea   NOT NULL,
    codec integer NOT NULL,
    blob  bytea   NOT NULL
);
ALTER TABLE runway.snapshots ALTER COLUMN blob SET STORAGE EXTERNAL;

-- How far each destination has been sent the log; see app/delivery.py.
CREATE TABLE IF NOT EXISTS runway.cursors (
    destination       text        PRIMARY KEY,
    since             bigint      NOT NULL,
    low               bigint      NOT NULL,
    above             json        NOT NULL,
    last_failure      text        NOT NULL,
    last_delivered_at timestamptz
);

-- Alerts that a destination was told and not yet told to be over.
CREATE TABLE IF NOT EXISTS runway.told (
    destination text NOT NULL,
    key         text NOT NULL,
    told        json NOT NULL,
    PRIMARY KEY (destination, key)
);
