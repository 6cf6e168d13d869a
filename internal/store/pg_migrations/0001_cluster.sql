-- +goose Up

COMMENT ON SCHEMA covey IS 'the store of one Covey cluster';

-- Where the store stands, and who leads: whoever commits or takes the lead
-- changes this row, so one of the two waits for the other.
CREATE TABLE meta (
	id          integer PRIMARY KEY CHECK (id = 1),
	rev         bigint NOT NULL,
	seq         bigint NOT NULL,
	at          bigint NOT NULL,
	holder      text   NOT NULL,
	incarnation bigint NOT NULL,
	n           bigint NOT NULL
) WITH (fillfactor = 10);
INSERT INTO meta VALUES (1, 0, 0, 0, '', 0, 0);

-- Until when nobody else may take the lead. It has a row of its own, so that a
-- renewal does not wait for a commit that takes long.
CREATE TABLE lease (
	id          integer PRIMARY KEY CHECK (id = 1),
	until       bigint NOT NULL
) WITH (fillfactor = 10);
INSERT INTO lease VALUES (1, 0);

-- One table for each kind of row, with the keys and values of the SQLite store.
CREATE TABLE cluster    (key bytea PRIMARY KEY, value bytea NOT NULL);
CREATE TABLE config     (key bytea PRIMARY KEY, value bytea NOT NULL);
CREATE TABLE job        (key bytea PRIMARY KEY, value bytea NOT NULL) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
CREATE TABLE instance   (key bytea PRIMARY KEY, value bytea NOT NULL) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
CREATE TABLE task       (key bytea PRIMARY KEY, value bytea NOT NULL) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
CREATE TABLE machine    (key bytea PRIMARY KEY, value bytea NOT NULL) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
CREATE TABLE credential (key bytea PRIMARY KEY, value bytea NOT NULL);
CREATE TABLE source     (key bytea PRIMARY KEY, value bytea NOT NULL) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);

-- The records of one commit are one row. There is a partition for each day, made
-- when the first commit of that day comes and dropped whole.
CREATE TABLE records (
	last  bigint NOT NULL,
	first bigint NOT NULL,
	at    bigint NOT NULL,
	block bytea  NOT NULL,
	PRIMARY KEY (last, at)
) PARTITION BY RANGE (at);

-- Tasks that have ended. The order of the key is the order of the answers.
CREATE TABLE history (
	job      bytea   NOT NULL,
	ended    bigint  NOT NULL,
	instance integer NOT NULL,
	attempt  bigint  NOT NULL,
	value    bytea   NOT NULL,
	PRIMARY KEY (job, ended, instance, attempt)
);
CREATE INDEX history_ended ON history (ended);

-- The rows of the last commits, for servers that follow. It need not survive a
-- crash of the database: who misses something reads everything again.
CREATE UNLOGGED TABLE feed (
	rev     bigint PRIMARY KEY,
	base    bigint NOT NULL,
	base_at bigint NOT NULL,
	rows    bytea  NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.2);
ALTER TABLE feed ALTER COLUMN rows SET STORAGE EXTERNAL;

-- The servers of the cluster, each of which says every second that it lives.
CREATE TABLE server (
	name  text   PRIMARY KEY,
	url   text   NOT NULL,
	token text   NOT NULL,
	owner text   NOT NULL,
	seen  timestamptz NOT NULL
) WITH (fillfactor = 10);

-- Begins every commit: only the leader goes on from where the store stands.
-- Everybody else is refused with CV001, and with that the whole transaction.
-- Rows for the feed may be NULL.
-- +goose StatementBegin
CREATE FUNCTION step(p_incarnation bigint, p_n bigint, p_base bigint, p_rev bigint, p_at bigint, p_records bigint, p_last bigint, p_feed bytea)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	was bigint;
BEGIN
	SELECT at INTO was FROM meta
	WHERE id = 1 AND holder <> '' AND incarnation = p_incarnation AND n = p_n
		AND rev = p_base AND p_rev > p_base AND at <= p_at AND (p_records = 0 OR seq + p_records = p_last)
	FOR UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'this commit is not the leader''s next one' USING ERRCODE = 'CV001';
	END IF;
	UPDATE meta SET rev = p_rev, seq = seq + p_records, at = p_at WHERE id = 1;
	IF p_feed IS NOT NULL THEN
		INSERT INTO feed VALUES (p_rev, p_base, was, p_feed);
	END IF;
END
$$;
-- +goose StatementEnd
