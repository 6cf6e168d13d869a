-- +goose Up

COMMENT ON SCHEMA covey_company IS 'the store of a company that runs Covey';

-- Where the meter of each cluster stands: the last record that it has taken
-- in, and what lives then. Clusters are named by their UID. Every value ends
-- with a checksum of its place and itself.
CREATE TABLE meter (
	cluster text   NOT NULL PRIMARY KEY,
	seq     bigint NOT NULL,
	fold    bytea  NOT NULL
);

-- What each cluster had and reserved in each hour that is over.
CREATE TABLE hour (
	cluster text   NOT NULL,
	hour    bigint NOT NULL,
	value   bytea  NOT NULL,
	PRIMARY KEY (cluster, hour)
);

-- What jobs used, also in hours that are not over. Jobs sort by their bytes.
CREATE TABLE used (
	cluster text   NOT NULL,
	hour    bigint NOT NULL,
	job     text   COLLATE "C" NOT NULL,
	value   bytea  NOT NULL,
	PRIMARY KEY (cluster, hour, job)
);
