//go:build !nextformat

package store

import (
	"io/fs"

	"github.com/pressly/goose/v3"
)

// nextTables adds the migration that only the version ahead has.
func nextTables(fs.FS) []goose.ProviderOption { return nil }
