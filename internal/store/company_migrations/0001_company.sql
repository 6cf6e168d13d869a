-- +goose Up

-- "CovC": this file is a company store of Covey's.
PRAGMA application_id = 1131378243;

-- Where the meter of each cluster stands: the last record that it has taken
-- in, and what lives then. Clusters are named by their UID. Every value ends
-- with a checksum of its place and itself.
CREATE TABLE meter (
	cluster TEXT    NOT NULL PRIMARY KEY,
	seq     INTEGER NOT NULL,
	fold    BLOB    NOT NULL
) WITHOUT ROWID;

-- What each cluster had and reserved in each hour that is over.
CREATE TABLE hour (
	cluster TEXT    NOT NULL,
	hour    INTEGER NOT NULL,
	value   BLOB    NOT NULL,
	PRIMARY KEY (cluster, hour)
);

-- What jobs used, also in hours that are not over.
CREATE TABLE used (
	cluster TEXT    NOT NULL,
	hour    INTEGER NOT NULL,
	job     TEXT    NOT NULL,
	value   BLOB    NOT NULL,
	PRIMARY KEY (cluster, hour, job)
) WITHOUT ROWID;
