-- +goose Up

-- What roles may reserve in the tier preferred.
CREATE TABLE quota (key bytea PRIMARY KEY, value bytea NOT NULL);
