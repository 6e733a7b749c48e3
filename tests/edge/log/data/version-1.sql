-- A log of version 1, written by the code of that version (Python: sqlite3.Connection.iterdump).
PRAGMA application_id = 1181568103;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
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
INSERT INTO "classification" VALUES(2,2,'a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1','b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1','ai_edge_litert','empty',0.8,'empty','[["empty", 0.8], ["fox", 0.2]]',X'000000000000000000000000',0,'2026-05-01T05:00:04.000+00:00');
INSERT INTO "classification" VALUES(3,3,'a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1','b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1','ai_edge_litert','fox',0.7,'species','[["fox", 0.7], ["deer", 0.3]]',X'000000000000000000000000',0,'2026-05-01T05:00:11.000+00:00');
INSERT INTO "classification" VALUES(4,1,'a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2','b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2','ai_edge_litert','fox',0.6,'species','[["fox", 0.6], ["deer", 0.4]]',X'000000000000000000000000',0,'2026-05-01T05:00:14.000+00:00');
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
    ;
INSERT INTO "file" VALUES(1,'device-1','/srv/photos','IMG_0001.JPG',100,5,'beech','cam-07','2026-05-01T06:00:00','+01:00','exif','',1,NULL,NULL,NULL,NULL,0,NULL,NULL,'2026-05-01T05:00:00.000+00:00');
INSERT INTO "file" VALUES(2,'device-1','/srv/photos','IMG_0002.JPG',100,5,'beech','cam-07','2026-05-01T06:00:01.250','+01:00','exif','',2,NULL,NULL,NULL,NULL,0,NULL,NULL,'2026-05-01T05:00:03.000+00:00');
INSERT INTO "file" VALUES(3,'device-1','/srv/photos','copy/IMG_0001.JPG',100,5,'beech','cam-07','2026-05-01T06:00:00','+01:00','exif','',1,1,NULL,NULL,NULL,0,NULL,NULL,'2026-05-01T05:00:06.000+00:00');
INSERT INTO "file" VALUES(4,'device-1','/srv/photos','IMG_0003.JPG',7,5,'beech','cam-07','2026-05-01T07:00:00','+01:00','exif','',NULL,NULL,'cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc','truncated','the photo is truncated',0,NULL,NULL,'2026-05-01T05:00:08.000+00:00');
INSERT INTO "file" VALUES(5,'device-1','/srv/photos','IMG_0004.JPG',7,5,'beech','cam-07','2026-05-01T08:00:00','+01:00','exif','',NULL,NULL,'cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd','truncated','the photo is truncated',0,6,'2026-05-01T05:00:12.000+00:00','2026-05-01T05:00:09.000+00:00');
INSERT INTO "file" VALUES(6,'device-1','/srv/photos','IMG_0004.JPG',100,5,'beech','cam-07','2026-05-01T08:00:00','+01:00','exif','',3,NULL,NULL,NULL,NULL,0,NULL,NULL,'2026-05-01T05:00:10.000+00:00');
INSERT INTO "file" VALUES(7,'device-1','/srv/photos','IMG_0005.JPG',100,5,'beech','cam-07','2026-05-01T09:00:00','+01:00','exif','',4,NULL,NULL,'model','the runtime failed',1,NULL,NULL,'2026-05-01T05:00:13.000+00:00');
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
    ) STRICT
    ;
INSERT INTO "photo" VALUES(1,'0101010101010101010101010101010101010101010101010101010101010101',4000,3000,'Reconyx','HP2X',0);
INSERT INTO "photo" VALUES(2,'0202020202020202020202020202020202020202020202020202020202020202',4000,3000,'Reconyx','HP2X',0);
INSERT INTO "photo" VALUES(3,'0404040404040404040404040404040404040404040404040404040404040404',4000,3000,'Reconyx','HP2X',1);
INSERT INTO "photo" VALUES(4,'0505050505050505050505050505050505050505050505050505050505050505',4000,3000,'Reconyx','HP2X',0);
CREATE TABLE review (
        id INTEGER PRIMARY KEY,
        photo_id INTEGER REFERENCES photo (id),
        event TEXT,                             -- an event's id, for a review of the whole event
        who TEXT NOT NULL,
        created_utc TEXT NOT NULL,
        CHECK ((photo_id IS NULL) <> (event IS NULL))
    ) STRICT
    ;
INSERT INTO "review" VALUES(1,1,NULL,'Ada','2026-05-01T05:00:16.000+00:00');
CREATE INDEX file_by_photo ON file (photo_id);
CREATE INDEX review_by_photo ON review (photo_id);
CREATE INDEX observation_by_review ON observation (review_id);
COMMIT;
