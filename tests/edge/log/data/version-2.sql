-- A log of version 2, written by the code of that version (Python: sqlite3.Connection.iterdump).
PRAGMA application_id = 1181568103;
PRAGMA user_version = 2;
BEGIN TRANSACTION;
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
    ;
INSERT INTO "agent_run" VALUES(1,'device-1','2026-05-01T05:00:39.000+00:00','2026-05-01T05:00:39.000+00:00',NULL,'b',0,0,'0.1','a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1');
INSERT INTO "agent_run" VALUES(2,'device-1','2026-05-01T05:00:40.000+00:00','2026-05-01T05:00:41.000+00:00','2026-05-01T05:00:41.000+00:00','b',1,0,'0.1','a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1');
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
    ;
INSERT INTO "alert" VALUES(1,'a|deer|beech|1','radio',5,'deer','2026-05-01T05:00:28.000+00:00',1,'2026-05-02T00:00:00.000+00:00',NULL,'no network');
INSERT INTO "alert" VALUES(2,'b|deer|beech|1','mail',5,'deer','2026-05-01T05:00:28.000+00:00',0,'2026-05-01T05:00:28.000+00:00','2026-05-01T05:00:29.000+00:00',NULL);
CREATE TABLE bundle (
        digest TEXT PRIMARY KEY,                -- SHA-256 of the manifest's bytes, hex
        name TEXT NOT NULL,                     -- NAME-SEQUENCE
        model_digest TEXT NOT NULL,             -- SHA-256 of the .tflite, hex
        labels TEXT NOT NULL,                   -- JSON list, in the order of the logits
        thresholds TEXT NOT NULL,               -- JSON list, one probability per label
        temperature REAL NOT NULL
    ) STRICT
    ;
INSERT INTO "bundle" VALUES('b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1','forest-1','a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1','["deer", "empty", "fox"]','[0.5, 0.5, 0.5]',1.0);
INSERT INTO "bundle" VALUES('b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2','forest-2','a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2','["deer", "empty", "fox"]','[0.5, 0.6, 0.5]',1.25);
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
    ;
INSERT INTO "classification" VALUES(1,1,'a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1','b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1','ai_edge_litert','deer',0.9,'species','[["deer", 0.9], ["fox", 0.1]]',X'000000000000000000000000',0,'2026-05-01T05:00:01.000+00:00');
INSERT INTO "classification" VALUES(2,2,'a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1','b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1','ai_edge_litert','empty',0.8,'empty','[["empty", 0.8], ["fox", 0.2]]',X'000000000000000000000000',0,'2026-05-01T05:00:05.000+00:00');
INSERT INTO "classification" VALUES(3,3,'a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1','b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1','ai_edge_litert','fox',0.7,'species','[["fox", 0.7], ["deer", 0.3]]',X'000000000000000000000000',0,'2026-05-01T05:00:16.000+00:00');
INSERT INTO "classification" VALUES(4,1,'a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2','b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2','ai_edge_litert','fox',0.6,'species','[["fox", 0.6], ["deer", 0.4]]',X'000000000000000000000000',0,'2026-05-01T05:00:21.000+00:00');
INSERT INTO "classification" VALUES(5,5,'a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2','b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2','ai_edge_litert','deer',0.95,'species','[["deer", 0.95], ["fox", 0.05]]',X'000000000000000000000000',0,'2026-05-01T05:00:26.000+00:00');
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
    ;
INSERT INTO "deletion" VALUES(1,2,'empty-90d','empty 0.80','/mnt/stick','2026-05-01T05:00:33.000+00:00','2026-05-01T05:00:34.000+00:00',NULL,NULL);
INSERT INTO "deletion" VALUES(2,1,'old','old',NULL,'2026-05-01T05:00:35.000+00:00',NULL,'2026-05-01T05:00:36.000+00:00','it has changed');
INSERT INTO "deletion" VALUES(3,6,'old','old',NULL,'2026-05-01T05:00:37.000+00:00',NULL,NULL,NULL);
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
        seen_utc TEXT NOT NULL, tries INTEGER NOT NULL DEFAULT 1 CHECK (tries >= 1), next_try_utc TEXT, tried_model TEXT,
        UNIQUE (device, source, path, size_bytes, mtime_ns),
        CHECK (photo_id IS NOT NULL OR failure_code IS NOT NULL),
        CHECK ((failure_code IS NULL) = (failure_reason IS NULL)),
        CHECK ((failure_closed_by IS NULL) = (failure_closed_utc IS NULL))
    ) STRICT
    ;
INSERT INTO "file" VALUES(1,'device-1','/srv/photos','IMG_0001.JPG',100,5,'beech','cam-07','2026-05-01T06:00:00','+01:00','exif','',1,NULL,NULL,NULL,NULL,0,NULL,NULL,'2026-05-01T05:00:00.000+00:00',1,NULL,NULL);
INSERT INTO "file" VALUES(2,'device-1','/srv/photos','IMG_0002.JPG',100,5,'beech','cam-07','2026-05-01T06:00:01.250','+01:00','exif','',2,NULL,NULL,NULL,NULL,0,NULL,NULL,'2026-05-01T05:00:04.000+00:00',1,NULL,NULL);
INSERT INTO "file" VALUES(3,'device-1','/srv/photos','copy/IMG_0001.JPG',100,5,'beech','cam-07','2026-05-01T06:00:00','+01:00','exif','',1,1,NULL,NULL,NULL,0,NULL,NULL,'2026-05-01T05:00:08.000+00:00',1,NULL,NULL);
INSERT INTO "file" VALUES(4,'device-1','/srv/photos','IMG_0003.JPG',7,5,'beech','cam-07','2026-05-01T07:00:00','+01:00','exif','',NULL,NULL,'cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc','truncated','the photo is truncated',0,NULL,NULL,'2026-05-01T05:00:11.000+00:00',1,NULL,NULL);
INSERT INTO "file" VALUES(5,'device-1','/srv/photos','IMG_0004.JPG',7,5,'beech','cam-07','2026-05-01T08:00:00','+01:00','exif','',NULL,NULL,'cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd','truncated','the photo is truncated',0,6,'2026-05-01T05:00:17.000+00:00','2026-05-01T05:00:13.000+00:00',1,NULL,NULL);
INSERT INTO "file" VALUES(6,'device-1','/srv/photos','IMG_0004.JPG',100,5,'beech','cam-07','2026-05-01T08:00:00','+01:00','exif','',3,NULL,NULL,NULL,NULL,0,NULL,NULL,'2026-05-01T05:00:15.000+00:00',1,NULL,NULL);
INSERT INTO "file" VALUES(7,'device-1','/srv/photos','IMG_0005.JPG',100,5,'beech','cam-07','2026-05-01T09:00:00','+01:00','exif','',4,NULL,NULL,'model','the runtime failed',1,NULL,NULL,'2026-05-01T05:00:19.000+00:00',1,'2026-05-01T05:01:00.000+00:00',NULL);
INSERT INTO "file" VALUES(8,'device-1','/srv/photos','IMG_0006.JPG',100,5,'beech','cam-07','2026-05-01T10:00:00','+01:00','exif','',5,NULL,NULL,NULL,NULL,0,NULL,NULL,'2026-05-01T05:00:25.000+00:00',1,NULL,NULL);
INSERT INTO "file" VALUES(9,'device-1','/srv/photos','IMG_0007.JPG',7,5,'beech','cam-07','2026-05-01T11:00:00','+01:00','exif','',NULL,NULL,NULL,'unreadable','the card had a bad contact',1,NULL,NULL,'2026-05-01T05:00:30.000+00:00',2,'2026-05-01T05:10:00.000+00:00','a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2');
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
    ;
INSERT INTO "observation" VALUES(1,1,'roe deer',2,'female',NULL,NULL,NULL,NULL);
INSERT INTO "observation" VALUES(2,1,'fox',1,NULL,NULL,NULL,NULL,'behind');
CREATE TABLE photo (
        id INTEGER PRIMARY KEY,
        sha256 TEXT NOT NULL UNIQUE CHECK (length(sha256) = 64),
        width INTEGER NOT NULL,                 -- pixels, as stored, before EXIF orientation
        height INTEGER NOT NULL,
        camera_make TEXT,
        camera_model TEXT,
        damaged INTEGER NOT NULL DEFAULT 0 CHECK (damaged IN (0, 1))   -- decodes, but is visibly damaged
    , preview TEXT NOT NULL DEFAULT 'none'
        CHECK (preview IN ('none', 'kept', 'blurred', 'withheld', 'released')), camera_serial TEXT, temperature_c REAL, burst INTEGER) STRICT
    ;
INSERT INTO "photo" VALUES(1,'0101010101010101010101010101010101010101010101010101010101010101',4000,3000,'Reconyx','HP2X',0,'none',NULL,NULL,NULL);
INSERT INTO "photo" VALUES(2,'0202020202020202020202020202020202020202020202020202020202020202',4000,3000,'Reconyx','HP2X',0,'none',NULL,NULL,NULL);
INSERT INTO "photo" VALUES(3,'0404040404040404040404040404040404040404040404040404040404040404',4000,3000,'Reconyx','HP2X',1,'none',NULL,NULL,NULL);
INSERT INTO "photo" VALUES(4,'0505050505050505050505050505050505050505050505050505050505050505',4000,3000,'Reconyx','HP2X',0,'none',NULL,NULL,NULL);
INSERT INTO "photo" VALUES(5,'0606060606060606060606060606060606060606060606060606060606060606',4000,3000,'Reconyx','HP2X',0,'blurred','H1',-3.5,2);
CREATE TABLE review (
        id INTEGER PRIMARY KEY,
        photo_id INTEGER REFERENCES photo (id),
        event TEXT,                             -- an event's id, for a review of the whole event
        who TEXT NOT NULL,
        created_utc TEXT NOT NULL,
        CHECK ((photo_id IS NULL) <> (event IS NULL))
    ) STRICT
    ;
INSERT INTO "review" VALUES(1,1,NULL,'Ada','2026-05-01T05:00:24.000+00:00');
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
    ;
INSERT INTO "time_shift" VALUES(1,NULL,NULL,'beech',NULL,'2026-05-01T07:00:00',0,3600,'clock was slow','Ada','2026-05-01T05:00:38.000+00:00');
CREATE INDEX file_by_photo ON file (photo_id);
CREATE INDEX review_by_photo ON review (photo_id);
CREATE INDEX observation_by_review ON observation (review_id);
CREATE INDEX file_by_next_try ON file (next_try_utc) WHERE next_try_utc IS NOT NULL;
CREATE INDEX file_open_failure ON file (id) WHERE failure_code IS NOT NULL AND failure_closed_utc IS NULL;
CREATE UNIQUE INDEX deletion_of_file ON deletion (file_id) WHERE dropped_utc IS NULL;
CREATE INDEX alert_to_send ON alert (next_try_utc) WHERE sent_utc IS NULL;
COMMIT;
