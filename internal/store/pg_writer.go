package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/state"
)

// A pgWriter is the one connection that commits. It speaks the protocol
// itself: a commit is one write of everything from BEGIN to COMMIT, and one
// wait for the answers, however many statements there are.
type pgWriter struct {
	conn  *pgx.Conn
	batch *pgconn.Batch
	used  time.Time
}

// pgIdle is how long a connection is believed to be good: an outcome that
// nobody knows costs a term, and a look at the connection next to nothing.
const pgIdle = 5 * time.Millisecond

// pgReady is how long it may take until a commit can be sent.
const pgReady = 2 * time.Second

// The statements of a commit, by the names under which they are prepared.
const (
	pgBegin   = "begin"
	pgEnd     = "commit"
	pgStep    = "step"
	pgRecord  = "records"
	pgHistory = "history"
)

func pgStatements() map[string]string {
	all := map[string]string{
		pgBegin:  "BEGIN",
		pgEnd:    "COMMIT",
		pgStep:   "SELECT step($1, $2, $3, $4, $5, $6, $7, $8)",
		pgRecord: "INSERT INTO records (last, first, at, block) VALUES ($1, $2, $3, $4)",
		pgHistory: "INSERT INTO history (job, ended, instance, attempt, value)" +
			" SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::integer[], $4::bigint[], $5::bytea[])" +
			" ON CONFLICT (job, ended, instance, attempt) DO UPDATE SET value = excluded.value",
	}
	for _, t := range state.Tables() {
		all["put "+t.String()] = fmt.Sprintf("INSERT INTO %s (key, value) SELECT * FROM unnest($1::bytea[], $2::bytea[])"+
			" ON CONFLICT (key) DO UPDATE SET value = excluded.value", t)
		all["del "+t.String()] = fmt.Sprintf("DELETE FROM %s WHERE key = ANY ($1::bytea[])", t)
	}
	return all
}

// writer returns the connection that commits, and opens it if need be.
func (s *Postgres) writer(ctx context.Context) (*pgWriter, error) {
	ctx, cancel := context.WithTimeout(ctx, pgReady)
	defer cancel()
	if s.closed {
		return nil, fault.Unavailable.Errorf("the database is closed")
	}
	if s.write != nil && !s.write.conn.IsClosed() {
		if time.Since(s.write.used) < pgIdle || s.write.conn.Ping(ctx) == nil {
			return s.write, nil
		}
		s.drop() // it broke meanwhile, with nothing under way
	}
	conn, err := pgx.ConnectConfig(ctx, s.conf.ConnConfig)
	if err != nil {
		return nil, err
	}
	for name, sql := range pgStatements() {
		if _, err := conn.PgConn().Prepare(ctx, name, sql, nil); err != nil {
			return nil, errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
		}
	}
	s.write = &pgWriter{conn: conn}
	return s.write, nil
}

// drop gives the connection that commits up, in whatever state it is.
func (s *Postgres) drop() {
	if s.write == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := s.write.conn.Close(ctx); err != nil {
		s.cfg.Log.Debug("a broken connection did not close", "database", s.name, "error", err)
	}
	s.write = nil
}

// add puts a prepared statement into the batch. All values are binary.
func (w *pgWriter) add(name string, values ...[]byte) {
	w.batch.ExecPrepared(name, values, []int16{1}, []int16{1})
}

// run begins, runs what was added and commits. If it returns an error that is
// not of kind Timeout, nothing has happened.
func (s *Postgres) run(ctx context.Context, w *pgWriter, doing string) error {
	w.batch.ExecPrepared(pgEnd, nil, nil, nil)
	ctx, cancel := context.WithTimeout(ctx, pgCommit) // the database may never answer
	defer cancel()
	err := w.conn.PgConn().ExecBatch(ctx, w.batch).Close()
	w.batch, w.used = nil, time.Now()
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.SeverityUnlocalized == "ERROR" {
		// The database refused a statement, and skips all that follows, the
		// COMMIT too.
		if _, e := w.conn.Exec(ctx, "ROLLBACK"); e != nil {
			s.drop()
		}
		return s.explain(doing, err)
	}
	s.drop()
	return fault.Timeout.Errorf("%s: nobody knows whether it happened: %w; the database %s must be loaded again", doing, err, s.name)
}

func pgInt(v int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(v)) }

// A pgArray is an array in PostgreSQL's binary form.
type pgArray []byte

// newPgArray begins an array of n elements of a type, which take about size
// bytes together.
func newPgArray(element uint32, n, size int) pgArray {
	a := make(pgArray, 0, 20+size)
	dims := uint32(1)
	if n == 0 {
		dims = 0
	}
	a = binary.BigEndian.AppendUint32(a, dims)
	a = binary.BigEndian.AppendUint32(a, 0) // no NULLs
	a = binary.BigEndian.AppendUint32(a, element)
	if n > 0 {
		a = binary.BigEndian.AppendUint32(a, uint32(n))
		a = binary.BigEndian.AppendUint32(a, 1) // the first index
	}
	return a
}

// begin begins an element of size bytes, which are appended then.
func (a *pgArray) begin(size int) { *a = binary.BigEndian.AppendUint32(*a, uint32(size)) }

func (a *pgArray) bytes(b []byte) {
	a.begin(len(b))
	*a = append(*a, b...)
}

func (a *pgArray) int64(v int64) {
	a.begin(8)
	*a = binary.BigEndian.AppendUint64(*a, uint64(v))
}

func (a *pgArray) int32(v int32) {
	a.begin(4)
	*a = binary.BigEndian.AppendUint32(*a, uint32(v))
}
