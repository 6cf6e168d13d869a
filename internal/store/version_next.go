//go:build nextformat

package store

import (
	"context"
	"database/sql"
	"io/fs"

	"github.com/pressly/goose/v3"
)

// nextTables adds the migration that only the version ahead has.
func nextTables(files fs.FS) []goose.ProviderOption {
	names, err := fs.Glob(files, "*.sql")
	if err != nil {
		panic(err) // the pattern is a good one
	}
	up := &goose.GoFunc{RunTx: func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "CREATE TABLE next_format (added integer)")
		return err
	}}
	return []goose.ProviderOption{goose.WithGoMigrations(goose.NewGoMigration(int64(len(names)+1), up, nil))}
}
