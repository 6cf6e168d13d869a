package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/covey-platform/covey/internal/fault"
)

//go:embed migrations/*.sql
var migrations embed.FS

// application marks a database as a cluster store; see 0001_cluster.sql.
const application = 0x436f7679

// upgrade creates the tables or brings them up to this program's version. A
// database that is one version ahead is used as it is: a version only adds.
func (s *SQLite) upgrade(ctx context.Context) (err error) {
	db, err := s.pool(1)
	if err != nil {
		return err
	}
	defer func() {
		if e := db.Close(); e != nil {
			err = errors.Join(err, s.explain("close", e))
		}
	}()
	if err = s.recognise(ctx, db); err != nil {
		return err
	}
	if err = migrate(ctx, goose.DialectSQLite3, db, migrations, "migrations", s.cfg.Path, s.cfg.Log); err != nil {
		return s.explain("bring the tables up to date", err)
	}
	return nil
}

// recognise refuses a database of some other program.
func (s *SQLite) recognise(ctx context.Context, db *sql.DB) error {
	var tables, id int
	err := db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_master WHERE name <> ? AND name NOT LIKE 'sqlite_%'", schemaVersion).Scan(&tables)
	if err == nil {
		err = db.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id)
	}
	if err != nil {
		return s.explain("open", err)
	}
	if tables > 0 && id != application {
		return fault.Invalid.Errorf("%s is a database of some other program (application %#x; want %#x); name another path", s.cfg.Path, id, application)
	}
	return versioned(ctx, db, s)
}

// versioned reads the table of versions, where there is one. The migrations
// would take one that cannot be read for one that is missing, and fail to
// create what is there.
func versioned(ctx context.Context, db *sql.DB, w words) error {
	const doing = "read the version of the tables"
	var n int
	err := db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_master WHERE name = ?", schemaVersion).Scan(&n)
	switch {
	case err != nil:
		return w.explain(doing, err)
	case n == 0:
		return nil
	}
	var at time.Time
	var applied bool
	err = db.QueryRowContext(ctx, "SELECT tstamp, is_applied FROM "+schemaVersion+" WHERE version_id = 0").Scan(&at, &applied)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sql.ErrNoRows):
		return w.damaged(doing, errors.New("the table "+schemaVersion+" has no first row"))
	case code(err) == 0 && ctx.Err() == nil: // it was read, and is no time
		return w.damaged(doing, err)
	}
	return w.explain(doing, err)
}
