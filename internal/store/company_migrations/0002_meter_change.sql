-- +goose Up

-- What has changed of a meter since its fold was written whole: a row for each
-- step, in order. The meter's number is that of the last one, and the fold is
-- what it says with these on top.
CREATE TABLE meter_change (
	cluster TEXT    NOT NULL,
	seq     INTEGER NOT NULL,
	changed BLOB    NOT NULL,
	PRIMARY KEY (cluster, seq)
) WITHOUT ROWID;
