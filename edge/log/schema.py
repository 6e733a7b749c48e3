"""The log's tables, as a list of migrations: entry N takes a log of version N to version N + 1.

An entry that was ever released is never edited, only followed by another. Runs nothing itself.
"""

from __future__ import annotations

APPLICATION_ID = 0x466D4C67
"""``FmLg``, in the file's header: tells a detection log from any other SQLite file."""

_FIRST = (
    # Which model said it. With labels and temperature, the logits of every classification can be read again.
    """
    CREATE TABLE bundle (
        digest TEXT PRIMARY KEY,                -- SHA-256 of the manifest's bytes, hex
        name TEXT NOT NULL,                     -- NAME-SEQUENCE
        model_digest TEXT NOT NULL,             -- SHA-256 of the .tflite, hex
        labels TEXT NOT NULL,                   -- JSON list, in the order of the logits
        thresholds TEXT NOT NULL,               -- JSON list, one probability per label
        temperature REAL NOT NULL
    ) STRICT
    """,
    # Content. Cameras reuse IMG_0001, so a photo is known by its hash alone.
    """
    CREATE TABLE photo (
        id INTEGER PRIMARY KEY,
        sha256 TEXT NOT NULL UNIQUE CHECK (length(sha256) = 64),
        width INTEGER NOT NULL,                 -- pixels, as stored, before EXIF orientation
        height INTEGER NOT NULL,
        camera_make TEXT,
        camera_model TEXT,
        damaged INTEGER NOT NULL DEFAULT 0 CHECK (damaged IN (0, 1))   -- decodes, but is visibly damaged
    ) STRICT
    """,
    # What was found in a folder. A file that does not decode is known by its name, size and time.
    """
    CREATE TABLE file (
        id INTEGER PRIMARY KEY,
        device TEXT NOT NULL,
        source TEXT NOT NULL,                   -- the watched folder; like path, as edge.pathtext writes it
        path TEXT NOT NULL,                     -- below the source, with forward slashes
        size_bytes INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL,
        station TEXT,
        camera TEXT,
        taken_local TEXT NOT NULL,              -- the camera's clock, ISO 8601 without offset
        utc_offset TEXT NOT NULL,               -- +hh:mm
        taken_source TEXT NOT NULL CHECK (taken_source IN ('exif', 'name', 'file')),
        time_flags TEXT NOT NULL,               -- words separated by spaces
        photo_id INTEGER REFERENCES photo (id),
        duplicate_of INTEGER REFERENCES file (id),      -- the first file with the same content
        sha256 TEXT,                            -- of a file that was read but is no photo
        failure_code TEXT,
        failure_reason TEXT,
        failure_retry INTEGER NOT NULL DEFAULT 0 CHECK (failure_retry IN (0, 1)),   -- try again at the next start
        failure_closed_by INTEGER REFERENCES file (id), -- the file, often this one, whose good read ended it
        failure_closed_utc TEXT,
        seen_utc TEXT NOT NULL,
        UNIQUE (device, source, path, size_bytes, mtime_ns),
        CHECK (photo_id IS NOT NULL OR failure_code IS NOT NULL),
        CHECK ((failure_code IS NULL) = (failure_reason IS NULL)),
        CHECK ((failure_closed_by IS NULL) = (failure_closed_utc IS NULL))
    ) STRICT
    """,
    "CREATE INDEX file_by_photo ON file (photo_id)",
    # One answer per photo and model: a new bundle with the same model says nothing new.
    """
    CREATE TABLE classification (
        id INTEGER PRIMARY KEY,
        photo_id INTEGER NOT NULL REFERENCES photo (id),
        model_digest TEXT NOT NULL,
        bundle_digest TEXT NOT NULL REFERENCES bundle (digest),
        runtime TEXT NOT NULL,
        label TEXT NOT NULL,                    -- the decided one
        confidence REAL NOT NULL CHECK (confidence BETWEEN 0 AND 1),
        decision TEXT NOT NULL CHECK (decision IN ('species', 'rollup', 'unknown', 'empty')),
        top TEXT NOT NULL,                      -- JSON list of at most five [label, probability]
        logits BLOB NOT NULL,                   -- little-endian float32, one per label of the bundle
        development INTEGER NOT NULL CHECK (development IN (0, 1)),     -- signed with a development key
        created_utc TEXT NOT NULL,
        UNIQUE (photo_id, model_digest)
    ) STRICT
    """,
    # What a person said. The newest review of a photo counts, the older ones are its history.
    """
    CREATE TABLE review (
        id INTEGER PRIMARY KEY,
        photo_id INTEGER REFERENCES photo (id),
        event TEXT,                             -- an event's id, for a review of the whole event
        who TEXT NOT NULL,
        created_utc TEXT NOT NULL,
        CHECK ((photo_id IS NULL) <> (event IS NULL))
    ) STRICT
    """,
    "CREATE INDEX review_by_photo ON review (photo_id)",
    """
    CREATE TABLE observation (
        id INTEGER PRIMARY KEY,
        review_id INTEGER NOT NULL REFERENCES review (id),
        label TEXT NOT NULL CHECK (length(label) BETWEEN 1 AND 200),
        count INTEGER NOT NULL DEFAULT 1 CHECK (count >= 1),
        sex TEXT,
        life_stage TEXT,
        behaviour TEXT,
        individual TEXT,
        comment TEXT
    ) STRICT
    """,
    "CREATE INDEX observation_by_review ON observation (review_id)",
)

_SECOND = (
    # A failing file gets several tries over time; with another model the counting starts again.
    "ALTER TABLE file ADD COLUMN tries INTEGER NOT NULL DEFAULT 1 CHECK (tries >= 1)",  # how often it was read
    "ALTER TABLE file ADD COLUMN next_try_utc TEXT",  # of an open failure; NULL: at the next start, if at all
    "ALTER TABLE file ADD COLUMN tried_model TEXT",  # model digest of the last try that failed
    "CREATE INDEX file_by_next_try ON file (next_try_utc) WHERE next_try_utc IS NOT NULL",
    "CREATE INDEX file_open_failure ON file (id) WHERE failure_code IS NOT NULL AND failure_closed_utc IS NULL",
    """
    ALTER TABLE photo ADD COLUMN preview TEXT NOT NULL DEFAULT 'none'
        CHECK (preview IN ('none', 'kept', 'blurred', 'withheld', 'released'))
    """,
    "ALTER TABLE photo ADD COLUMN camera_serial TEXT",
    "ALTER TABLE photo ADD COLUMN temperature_c REAL",  # as the camera measured it
    "ALTER TABLE photo ADD COLUMN burst INTEGER",  # number in its burst, from 1
    # Originals that a policy deletes. The row comes before the deletion, so that a power cut leaves no gap unexplained.
    """
    CREATE TABLE deletion (
        id INTEGER PRIMARY KEY,
        file_id INTEGER NOT NULL REFERENCES file (id),
        policy TEXT NOT NULL,                   -- its name in the settings
        why TEXT NOT NULL,
        copied_to TEXT,
        planned_utc TEXT NOT NULL,
        done_utc TEXT,                          -- the file is gone
        dropped_utc TEXT,                       -- it was not deleted after all
        dropped_why TEXT,
        CHECK (done_utc IS NULL OR dropped_utc IS NULL),
        CHECK ((dropped_utc IS NULL) = (dropped_why IS NULL))
    ) STRICT
    """,
    "CREATE UNIQUE INDEX deletion_of_file ON deletion (file_id) WHERE dropped_utc IS NULL",
    # Messages to send: stored in the transaction of the row that they are about, sent at least once.
    """
    CREATE TABLE alert (
        id INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,               -- one message per key, whatever comes in again
        channel TEXT NOT NULL,
        photo_id INTEGER REFERENCES photo (id),
        text TEXT NOT NULL,
        created_utc TEXT NOT NULL,
        tries INTEGER NOT NULL DEFAULT 0,
        next_try_utc TEXT NOT NULL,
        sent_utc TEXT,
        last_error TEXT
    ) STRICT
    """,
    "CREATE INDEX alert_to_send ON alert (next_try_utc) WHERE sent_utc IS NULL",
    # When the agent was alive. What lies between two runs is time in which nobody watched.
    """
    CREATE TABLE agent_run (
        id INTEGER PRIMARY KEY,
        device TEXT NOT NULL,
        started_utc TEXT NOT NULL,
        alive_utc TEXT NOT NULL,                -- the last heartbeat
        ended_utc TEXT,                         -- NULL while it runs, and after a power cut
        boot_id TEXT,
        clock_ok INTEGER NOT NULL CHECK (clock_ok IN (0, 1)),   -- whether the device knew the time
        once INTEGER NOT NULL DEFAULT 0 CHECK (once IN (0, 1)), -- it only drained a backlog
        version TEXT NOT NULL,
        model_digest TEXT
    ) STRICT
    """,
    # Corrections of a camera's clock. What the camera wrote stays in file.taken_local; every query adds these.
    """
    CREATE TABLE time_shift (
        id INTEGER PRIMARY KEY,
        device TEXT,                            -- NULL: any, and so below
        source TEXT,
        station TEXT,
        since_local TEXT,                       -- from this time on, by the camera's uncorrected clock
        until_local TEXT,                       -- before this time
        file_times INTEGER NOT NULL DEFAULT 0 CHECK (file_times IN (0, 1)), -- also times that are only the file's
        seconds INTEGER NOT NULL,
        reason TEXT NOT NULL,
        who TEXT NOT NULL,
        created_utc TEXT NOT NULL
    ) STRICT
    """,
)

_THIRD = (
    # From a moment to the photos around it: the same expression as edge.log.times.moment.
    "CREATE INDEX file_by_time ON file (coalesce(julianday(taken_local || utc_offset), 0))",
    "CREATE INDEX review_by_event ON review (event) WHERE event IS NOT NULL",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST, _SECOND, _THIRD)
