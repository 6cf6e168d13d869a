-- +goose Up

-- "Covy": this file is a cluster store of Covey's.
PRAGMA application_id = 1131378297;

-- Where the store stands, and who leads.
CREATE TABLE meta (
	id          INTEGER PRIMARY KEY CHECK (id = 1),
	rev         INTEGER NOT NULL,
	seq         INTEGER NOT NULL,
	at          INTEGER NOT NULL,
	holder      TEXT    NOT NULL,
	incarnation INTEGER NOT NULL,
	n           INTEGER NOT NULL,
	until       INTEGER NOT NULL
);
INSERT INTO meta VALUES (1, 0, 0, 0, '', 0, 0, 0);

-- One table for each kind of row. A value ends with a checksum of key and value.
CREATE TABLE cluster    (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE config     (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE job        (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE instance   (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE task       (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE machine    (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE credential (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE source     (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;

-- The records of one commit are one row.
CREATE TABLE records (
	last  INTEGER PRIMARY KEY,
	first INTEGER NOT NULL,
	at    INTEGER NOT NULL,
	block BLOB    NOT NULL
);

-- Tasks that have ended. The order of the key is the order of the answers.
CREATE TABLE history (
	job      BLOB    NOT NULL,
	ended    INTEGER NOT NULL,
	instance INTEGER NOT NULL,
	attempt  INTEGER NOT NULL,
	value    BLOB    NOT NULL,
	PRIMARY KEY (job, ended, instance, attempt)
) WITHOUT ROWID;
CREATE INDEX history_ended ON history (ended);
