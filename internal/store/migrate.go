package store

import (
	"context"
	"database/sql"
	"io/fs"
	"log/slog"

	"github.com/pressly/goose/v3"

	"github.com/covey-platform/covey/internal/fault"
)

// schemaVersion is the table that says which migrations a database has had.
const schemaVersion = "schema_version"

// migrate creates the tables of the database that people know as name, or
// brings them up to this program's version. A database that is one version
// ahead is used as it is: a version only adds. Errors without a kind are the
// driver's.
func migrate(ctx context.Context, dialect goose.Dialect, db *sql.DB, all fs.FS, dir, name string, log *slog.Logger) error {
	files, err := fs.Sub(all, dir)
	if err != nil {
		return fault.Internal.Errorf("migrations: %w", err)
	}
	p, err := goose.NewProvider(dialect, db, files, append(nextTables(files),
		goose.WithTableName(schemaVersion), goose.WithDisableGlobalRegistry(true), goose.WithSlog(log))...)
	if err != nil {
		return fault.Internal.Errorf("migrations: %w", err)
	}
	have, want, err := p.GetVersions(ctx)
	switch {
	case err != nil:
		return err
	case have > want+1:
		return fault.Invalid.Errorf("the database %s has tables of version %d; this program wants %d, and can use %d: start a newer one, or restore a backup that this one made", name, have, want, want+1)
	case have >= want:
		return nil
	}
	if _, err := p.Up(ctx); err != nil {
		return err
	}
	log.InfoContext(ctx, "database upgraded", "database", name, "from", have, "to", want)
	return nil
}
