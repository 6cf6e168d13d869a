-- +goose Up

-- What commits made of the rows and which tasks they ended, until that is
-- merged into the tables: one row for each commit, in order. What is here
-- counts more than what the tables say.
CREATE TABLE step (
	rev   INTEGER PRIMARY KEY,
	rows  INTEGER NOT NULL,
	ended BLOB,
	block BLOB
);

-- A program that does not know the steps must not lead while some wait: it
-- would read what the tables said before them. It does not count the terms.
ALTER TABLE meta ADD COLUMN terms INTEGER NOT NULL DEFAULT 0;
-- +goose StatementBegin
CREATE TRIGGER unmerged BEFORE UPDATE OF holder ON meta
WHEN NEW.terms = OLD.terms AND EXISTS (SELECT 1 FROM step)
BEGIN
	SELECT RAISE(ABORT, 'it was not closed in order by a newer covey, and this one would not see its last commits; start the newer one and stop it in order first');
END;
-- +goose StatementEnd
