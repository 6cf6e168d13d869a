package store

import (
	"bytes"
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// Commit makes b durable, with one message to the database and one answer. The
// database itself refuses it when b.Epoch is over or something else was
// committed since. Its errors are those of [state.Store]. When ctx ends while a
// commit is under way, nobody knows whether it happens.
func (s *Postgres) Commit(ctx context.Context, b *state.Batch) error {
	doing := fmt.Sprintf("commit revision %d", b.Rev)
	if err := known(b.Rows); err != nil {
		return err
	}
	last, err := numbered(b)
	if err != nil {
		return err
	}
	var block []byte
	if len(b.Records) > 0 {
		block = state.EncodeRecords(b.Records)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err = ctx.Err(); err != nil {
		return s.explain(doing, err)
	}
	w, err := s.writer(ctx)
	if err == nil {
		err = s.day(ctx, w, b)
	}
	if err != nil {
		return s.explain(doing, err)
	}
	seal := newSealer()
	var feed []byte // nil is NULL
	if s.followed.Load() {
		step := encodeStep(b)
		seal.reset(len(step) + sealSize)
		feed = bytes.Clone(seal.seal(nil, step))
	}
	w.batch = &pgconn.Batch{}
	w.batch.ExecPrepared(pgBegin, nil, nil, nil)
	w.add(pgStep, pgInt(int64(b.Epoch.Incarnation)), pgInt(int64(b.Epoch.N)), pgInt(int64(b.Base)), pgInt(int64(b.Rev)),
		pgInt(int64(b.At)), pgInt(int64(len(b.Records))), pgInt(int64(last)), feed)
	w.rows(seal, b.Rows)
	if block != nil {
		seal.reset(len(block) + sealSize)
		w.add(pgRecord, pgInt(int64(last)), pgInt(int64(b.Records[0].Seq)), pgInt(int64(b.At)), seal.seal(nil, block))
	}
	w.ended(b.Ended)
	err = s.run(ctx, w, doing)
	if fault.Of(err) == fault.Conflict {
		return s.refusal(ctx, b, err)
	}
	return err
}

// numbered checks what a batch says of itself, and returns the number of its
// last record.
func numbered(b *state.Batch) (state.Seq, error) {
	h := state.Head{Rev: b.Base}
	if len(b.Records) > 0 {
		h.Seq = b.Records[0].Seq - 1
	}
	next, err := h.After(b)
	return next.Seq, err
}

// refusal says why the database refused a commit, in the words of every store.
func (s *Postgres) refusal(ctx context.Context, b *state.Batch, refused error) error {
	head, term, err := s.meta(ctx, s.pool, "")
	if err != nil {
		return refused
	}
	if err = term.Leads(b.Epoch); err != nil {
		return err
	}
	if _, err = head.After(b); err != nil {
		return err
	}
	return refused
}

// A pgQuerier is a connection, a transaction or a pool.
type pgQuerier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// meta reads where the store stands and who leads, without the end of the lease.
func (s *Postgres) meta(ctx context.Context, q pgQuerier, lock string) (h state.Head, t state.Term, err error) {
	var rev, seq, at, incarnation, n int64
	err = q.QueryRow(ctx, "SELECT rev, seq, at, holder, incarnation, n FROM meta WHERE id = 1"+lock).
		Scan(&rev, &seq, &at, &t.Holder, &incarnation, &n)
	t.Epoch.Incarnation, t.Epoch.N = uint64(incarnation), uint64(n)
	return state.Head{Rev: state.Rev(rev), Seq: state.Seq(seq), At: unit.Tick(at)}, t, err
}

// rows adds what becomes of the rows: one statement for each table.
func (w *pgWriter) rows(seal *sealer, rows []state.Row) {
	for _, t := range state.Tables() {
		var put, del, keys, values, gone int
		for i := range rows {
			switch r := &rows[i]; {
			case r.Table != t:
			case r.Value == nil:
				del, gone = del+1, gone+len(r.Key)+4
			default:
				put, keys, values = put+1, keys+len(r.Key)+4, values+len(r.Value)+sealSize+4
			}
		}
		puts, with, dels := newPgArray(pgtype.ByteaOID, put, keys), newPgArray(pgtype.ByteaOID, put, values), newPgArray(pgtype.ByteaOID, del, gone)
		for i := range rows {
			switch r := &rows[i]; {
			case r.Table != t:
			case r.Value == nil:
				dels.bytes([]byte(r.Key))
			default:
				seal.reset(len(r.Key) + len(r.Value) + sealSize)
				key := seal.key(r.Key)
				puts.bytes(key)
				with.bytes(seal.seal(key, r.Value))
			}
		}
		if put > 0 {
			w.add("put "+t.String(), puts, with)
		}
		if del > 0 {
			w.add("del "+t.String(), dels)
		}
	}
}

// ended adds the tasks that leave the live state.
func (w *pgWriter) ended(ended []task.Task) {
	if len(ended) == 0 {
		return
	}
	n, seal := len(ended), newSealer()
	jobs, values := newPgArray(pgtype.ByteaOID, n, 40*n), newPgArray(pgtype.ByteaOID, n, 150*n)
	ends, instances, attempts := newPgArray(pgtype.Int8OID, n, 12*n), newPgArray(pgtype.Int4OID, n, 8*n), newPgArray(pgtype.Int8OID, n, 12*n)
	for i := range ended {
		t := &ended[i]
		jobs.bytes([]byte(t.ID.Job))
		ends.int64(int64(t.Since))
		instances.int32(t.ID.Instance)
		attempts.int64(int64(t.ID.Attempt))
		key, value := state.TaskKey(t.ID), state.EncodeTask(state.Task{Task: *t})
		seal.reset(len(value) + sealSize)
		values.bytes(seal.seal([]byte(key), value))
	}
	w.add(pgHistory, jobs, ends, instances, attempts, values)
}

// dayOf is the partition of records of a time.
func dayOf(at unit.Tick) int64 { return int64(at) / int64(24*unit.Hour) }

// day makes the partition of the day of b and that of the next one, unless
// they are there. Two servers may do so at once: the loser tries again.
func (s *Postgres) day(ctx context.Context, w *pgWriter, b *state.Batch) error {
	d := dayOf(b.At)
	if len(b.Records) == 0 || s.days[d] {
		return nil
	}
	for _, d := range []int64{d, d + 1} {
		from, to := d*int64(24*unit.Hour), (d+1)*int64(24*unit.Hour)
		_, err := w.conn.Exec(ctx, fmt.Sprintf("CREATE TABLE IF NOT EXISTS records_%d PARTITION OF records FOR VALUES FROM (%d) TO (%d)", d, from, to))
		if err != nil {
			return err
		}
		s.days[d] = true
	}
	delete(s.days, d+1) // it is looked at again when it comes
	return nil
}
