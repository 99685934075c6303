-- What belongs to the database as a whole. The epochs of new streams are derived from 'epoch_secret'; where that is
-- missing, the next start makes another.
CREATE TABLE hub_store (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL,
    CHECK (name <> 'epoch_secret' OR length(value) BETWEEN 16 AND 64)
) STRICT;

-- Durable streams, each made by its first publication. A row of streams outlives its publications, so that an offset is
-- never given twice.
CREATE TABLE streams (
    id            INTEGER PRIMARY KEY,
    channel       TEXT    NOT NULL UNIQUE,
    namespace     TEXT    NOT NULL,   -- of the last append
    epoch         TEXT    NOT NULL,
    top_offset    INTEGER NOT NULL,
    top_time      INTEGER NOT NULL,   -- milliseconds; the time of the newest publication, kept when that is deleted
    version       INTEGER NOT NULL,   -- unsigned 64 bits, held as two's complement
    version_epoch TEXT    NOT NULL,
    created       INTEGER NOT NULL    -- milliseconds
) STRICT;

-- Retention walks the streams of one namespace.
CREATE INDEX streams_namespace ON streams (namespace);

-- Stream and offset share the row's key, so that an append touches one tree only, a stream's publications lie together,
-- and large payloads do not waste pages as they would in a table WITHOUT ROWID. Offsets of a stream are dense and its
-- times never decrease, so a time is found by bisecting the key: reading by time and retention by age need no index.
CREATE TABLE publications (
    id        INTEGER PRIMARY KEY,   -- stream * 2^36 + offset
    time_ms   INTEGER NOT NULL,
    data      BLOB    NOT NULL,      -- the publisher's own bytes
    info      BLOB,                  -- msgpack [user, client, conn_info, chan_info]
    tags      TEXT,                  -- JSON object of strings
    delta     INTEGER NOT NULL,
    removed   INTEGER NOT NULL,      -- redacted: the content is gone
    stream_id INTEGER GENERATED ALWAYS AS (id >> 36) VIRTUAL,          -- these two are for people who look
    "offset"  INTEGER GENERATED ALWAYS AS (id & 68719476735) VIRTUAL
) STRICT;

CREATE TABLE idempotency (
    stream_id INTEGER NOT NULL,
    key       TEXT    NOT NULL,
    "offset"  INTEGER NOT NULL,
    expires   INTEGER NOT NULL,   -- milliseconds
    PRIMARY KEY (stream_id, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_expires ON idempotency (expires);
