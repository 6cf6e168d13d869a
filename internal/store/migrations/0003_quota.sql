-- +goose Up

-- What roles may reserve in the tier preferred.
CREATE TABLE quota (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
