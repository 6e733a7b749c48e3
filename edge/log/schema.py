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

MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST,)
