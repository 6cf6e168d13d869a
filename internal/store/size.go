package store

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// A Size is the room that a cluster's store takes.
type Size struct {
	Bytes   int64 // of the tables and of the log before them
	Free    int64 // bytes left where they lie; negative if the store cannot know
	Waiting int   // rows and ended tasks that are committed and not in the tables yet
}

// Size returns what the database's files take, and what is left for them.
func (s *SQLite) Size(context.Context) (Size, error) {
	var size Size
	for _, path := range []string{s.cfg.Path, s.cfg.Path + "-wal"} {
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) && path != s.cfg.Path {
			continue
		}
		if err != nil {
			return Size{}, s.explain("see how large it is", err)
		}
		size.Bytes += info.Size()
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(s.cfg.Path, &disk); err != nil {
		return Size{}, s.explain("see how much room is left", err)
	}
	size.Free = int64(disk.Bavail) * disk.Bsize
	_, size.Waiting = s.backlog.size()
	return size, nil
}

// Size returns what the tables of the cluster take, with their indexes.
func (s *Postgres) Size(ctx context.Context) (Size, error) {
	size := Size{Free: -1}
	err := s.pool.QueryRow(ctx, "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c"+
		" JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relkind = 'r'", pgSchema).Scan(&size.Bytes)
	if err != nil {
		return Size{}, s.explain("see how large it is", err)
	}
	return size, nil
}
