package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"maps"
	"slices"
	"strconv"
	"sync"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/ledger"
	"github.com/covey-platform/covey/internal/ledger/pack"
	"github.com/covey-platform/covey/internal/meter"
	"github.com/covey-platform/covey/internal/rate"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/unit"
)

// A Meter is the durable meter of one cluster. Where it stands and what it has
// metered change together or not at all, so it takes in every record once,
// however often it is given. Its methods may be called by several goroutines
// at once.
type Meter struct {
	company *Company
	cluster string

	mu    sync.Mutex
	fold  *meter.Fold // nil: what is stored is not known
	whole int         // bytes of the fold as it was stored whole; 0: it was not
	loose int         // bytes of the changes that are stored on top
}

// Meter returns the meter of a cluster, named by its UID, as it was left.
func (c *Company) Meter(ctx context.Context, cluster string) (*Meter, error) {
	m := &Meter{company: c, cluster: cluster}
	return m, m.load(ctx)
}

// load reads where the meter stands, unless that is known.
func (m *Meter) load(ctx context.Context) error {
	if m.fold != nil {
		return nil
	}
	tx, err := m.company.read.BeginTx(ctx, m.company.reading)
	if err != nil {
		return m.explain("read the meter", err)
	}
	defer func() { _ = tx.Rollback() }()
	fold, err := m.stored(ctx, tx)
	if err == nil {
		m.fold = fold
	}
	return err
}

// stored reads the meter as tx sees it.
func (m *Meter) stored(ctx context.Context, tx *sql.Tx) (*meter.Fold, error) {
	m.whole, m.loose = 0, 0
	var seq int64
	var sealed []byte
	err := tx.QueryRowContext(ctx, m.company.bind("SELECT seq, fold FROM meter WHERE cluster = ?"), m.cluster).Scan(&seq, &sealed)
	if errors.Is(err, sql.ErrNoRows) {
		return meter.New(), nil
	}
	if err != nil {
		return nil, m.explain("read the meter", err)
	}
	b, err := newSealer().open([]byte(m.cluster), sealed)
	if err != nil {
		return nil, m.damaged(err)
	}
	fold, err := meter.Decode(b)
	if err != nil {
		return nil, err
	}
	m.whole = len(b)
	if err = m.changes(ctx, tx, fold); err != nil {
		return nil, err
	}
	if fold.Seq() != state.Seq(seq) {
		return nil, m.damaged(fault.Internal.Errorf("it stands at record %d, and what it holds at %d", seq, fold.Seq()))
	}
	return fold, nil
}

// changes puts what was stored since on top of the fold.
func (m *Meter) changes(ctx context.Context, tx *sql.Tx, fold *meter.Fold) (err error) {
	rows, err := tx.QueryContext(ctx, m.company.bind("SELECT seq, changed FROM meter_change WHERE cluster = ? ORDER BY seq"), m.cluster)
	if err != nil {
		return m.explain("read the meter", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	seal := newSealer()
	for rows.Next() {
		var seq int64
		var sealed []byte
		if err := rows.Scan(&seq, &sealed); err != nil {
			return m.explain("read the meter", err)
		}
		b, err := seal.open(changeKey(m.cluster, state.Seq(seq)), sealed)
		if err != nil {
			return m.damaged(err)
		}
		if err := fold.Follow(b); err != nil {
			return err
		}
		m.loose += len(b)
	}
	if err := rows.Err(); err != nil {
		return m.explain("read the meter", err)
	}
	return nil
}

func changeKey(cluster string, seq state.Seq) []byte {
	return strconv.AppendUint([]byte(cluster+"\x00change\x00"), uint64(seq), 10)
}

func (m *Meter) damaged(err error) error {
	return m.company.words.damaged("read the meter of cluster "+m.cluster, err)
}

// Seq returns the number of the last record taken in, 0 if none: records up to
// it may be forgotten, and the next to take are those that follow it.
func (m *Meter) Seq(ctx context.Context) (state.Seq, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.load(ctx); err != nil {
		return 0, err
	}
	return m.fold.Seq(), nil
}

// Follows reports whether a cluster that stands at head can be the one that
// was metered. The error is of kind Conflict: its last records are gone, so it
// was restored from a copy that is older than what was metered.
func (m *Meter) Follows(ctx context.Context, head state.Head) error {
	seq, err := m.Seq(ctx)
	if err == nil && head.Seq < seq {
		return fault.Conflict.Errorf("cluster %s ends at record %d, but record %d was metered: it was restored from an older copy; restore the company's database from the same time", m.cluster, head.Seq, seq)
	}
	return err
}

// Take takes in records in order, in one transaction. Those taken in before
// change nothing; after them the next one must follow. If there is an error,
// nothing was taken in, or nobody knows: give the records from [Meter.Seq] on
// again. An error of kind Unavailable or Exhausted may pass; one of kind
// Conflict says that the cluster's records are not those that were metered.
func (m *Meter) Take(ctx context.Context, records []state.Record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.load(ctx); err != nil {
		return err
	}
	for len(records) > 0 && records[0].Seq <= m.fold.Seq() && records[0].At <= m.fold.Time() {
		records = records[1:]
	}
	if len(records) == 0 {
		return nil
	}
	if err := m.take(ctx, records); err != nil {
		m.fold = nil
		return err
	}
	return nil
}

func (m *Meter) take(ctx context.Context, records []state.Record) (err error) {
	tx, err := m.company.write.BeginTx(ctx, m.company.writing)
	if err != nil {
		return m.explain("take in records", err)
	}
	defer func() {
		if err != nil {
			_ = tx.Rollback() // it is gone either way
		}
	}()
	if m.company.claim != "" {
		if _, err = tx.ExecContext(ctx, m.company.claim, m.cluster); err != nil {
			return m.explain("take in records", err)
		}
	}
	if err = m.follows(ctx, tx); err != nil {
		return err
	}
	s := &step{ctx: ctx, tx: tx, bind: m.company.bind, cluster: m.cluster, seal: newSealer(), used: map[usage]ledger.Amounts{}}
	for _, r := range records {
		if err = m.fold.Fold(r, s); err != nil {
			if s.failed != nil {
				return m.explain("take in records", s.failed)
			}
			return err
		}
	}
	if err = s.flush(); err != nil {
		return m.explain("take in records", err)
	}
	if err = m.store(ctx, tx, false); err != nil {
		return m.explain("take in records", err)
	}
	if err = tx.Commit(); err != nil {
		return m.explain("take in records", err)
	}
	m.fold.Stored()
	return nil
}

// minLoose is how many bytes of changes are stored on top of a fold at least
// before it is written whole again.
const minLoose = 64 << 10

// store writes where the meter stands: what has changed, or all of it when an
// hour has ended, or when the changes come to half as much.
func (m *Meter) store(ctx context.Context, tx *sql.Tx, whole bool) error {
	seal, seq := newSealer(), int64(m.fold.Seq())
	changed, ok := m.fold.Changes()
	if ok && !whole && m.whole > 0 && m.loose+len(changed) <= max(minLoose, m.whole/2) {
		m.loose += len(changed)
		_, err := tx.ExecContext(ctx, m.company.bind("INSERT INTO meter_change (cluster, seq, changed) VALUES (?, ?, ?)"),
			m.cluster, seq, seal.seal(changeKey(m.cluster, m.fold.Seq()), changed))
		if err == nil {
			_, err = tx.ExecContext(ctx, m.company.bind("UPDATE meter SET seq = ? WHERE cluster = ?"), seq, m.cluster)
		}
		return err
	}
	fold := m.fold.Encode()
	m.whole, m.loose = len(fold), 0
	_, err := tx.ExecContext(ctx, m.company.bind("DELETE FROM meter_change WHERE cluster = ?"), m.cluster)
	if err == nil {
		_, err = tx.ExecContext(ctx, m.company.bind("INSERT INTO meter VALUES (?, ?, ?) ON CONFLICT (cluster) DO UPDATE SET seq = excluded.seq, fold = excluded.fold"),
			m.cluster, seq, seal.seal([]byte(m.cluster), fold))
	}
	return err
}

// Rest leaves the meter whole, as versions before its changes know it. One that
// was not left so stands still for them, and nothing of it is lost.
func (m *Meter) Rest(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fold == nil || m.loose == 0 {
		return nil
	}
	if err := m.leave(ctx); err != nil {
		m.fold = nil
		return m.explain("leave the meter", err)
	}
	return nil
}

func (m *Meter) leave(ctx context.Context) error {
	tx, err := m.company.write.BeginTx(ctx, m.company.writing)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // if it is not committed
	if err := m.follows(ctx, tx); err != nil {
		return err
	}
	if err := m.store(ctx, tx, true); err != nil {
		return err
	}
	return tx.Commit()
}

// ErrOvertaken says that another server has metered since this one did, as every
// server does that leads again: nothing is wrong, and [Meter.Seq] knows from
// where to go on.
var ErrOvertaken = errors.New("another server has metered meanwhile")

// follows refuses to go on from a place where the stored meter is not.
func (m *Meter) follows(ctx context.Context, tx *sql.Tx) error {
	var seq int64
	err := tx.QueryRowContext(ctx, m.company.bind("SELECT seq FROM meter WHERE cluster = ?"), m.cluster).Scan(&seq)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return m.explain("read the meter", err)
	}
	if state.Seq(seq) != m.fold.Seq() {
		return fault.Unavailable.Errorf("%w: the meter of cluster %s stands at record %d, and this server knew it at record %d; try again", ErrOvertaken, m.cluster, seq, m.fold.Seq())
	}
	return nil
}

func (m *Meter) explain(doing string, err error) error {
	return m.company.words.explain(doing+" of cluster "+m.cluster, err)
}

// Usage gives the hours from from to to, in order, and what was used in them
// to the sink, such as a [rate.Bill]. Hours that are open are given as they stand at
// now, cut there. Both bounds are on the hour, see [rate.Span].
func (m *Meter) Usage(ctx context.Context, from, to, now unit.Tick, sink meter.Sink) (err error) {
	if err = rate.Span(from, to); err != nil {
		return err
	}
	tx, fold, err := m.snapshot(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tx.Rollback()) }()
	if err = m.hours(ctx, tx, from, to, sink); err != nil {
		return err
	}
	err = fold.At(now, func(h ledger.Hour) error {
		if h.From < from || h.From >= to {
			return nil
		}
		return sink.Hour(h)
	})
	if err != nil {
		return err
	}
	return m.used(ctx, tx, from, to, sink)
}

// snapshot returns the stored hours and the open one as of the same record.
func (m *Meter) snapshot(ctx context.Context) (*sql.Tx, *meter.Fold, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.load(ctx); err != nil {
		return nil, nil, err
	}
	tx, err := m.company.read.BeginTx(ctx, m.company.reading)
	if err != nil {
		return nil, nil, m.explain("read the hours", err)
	}
	if err := m.follows(ctx, tx); err != nil { // also: from here on tx sees this moment
		m.fold = nil
		return nil, nil, errors.Join(err, tx.Rollback())
	}
	return tx, m.fold.Clone(), nil
}

func (m *Meter) hours(ctx context.Context, tx *sql.Tx, from, to unit.Tick, sink meter.Sink) (err error) {
	rows, err := tx.QueryContext(ctx, m.company.bind("SELECT hour, value FROM hour WHERE cluster = ? AND hour >= ? AND hour < ? ORDER BY hour"), m.cluster, int64(from), int64(to))
	if err != nil {
		return m.explain("read the hours", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	seal := newSealer()
	for rows.Next() {
		var at int64
		var sealed sql.RawBytes
		if err := rows.Scan(&at, &sealed); err != nil {
			return m.explain("read the hours", err)
		}
		b, err := seal.open(hourKey(m.cluster, unit.Tick(at)), sealed)
		if err != nil {
			return m.company.words.damaged("read hour "+ledger.Stamp(unit.Tick(at))+" of cluster "+m.cluster, err)
		}
		h, err := ledger.DecodeHour(b)
		if err != nil {
			return err
		}
		if err := sink.Hour(h); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return m.explain("read the hours", err)
	}
	return nil
}

func (m *Meter) used(ctx context.Context, tx *sql.Tx, from, to unit.Tick, sink meter.Sink) (err error) {
	rows, err := tx.QueryContext(ctx, m.company.bind("SELECT hour, job, value FROM used WHERE cluster = ? AND hour >= ? AND hour < ? ORDER BY hour, job"), m.cluster, int64(from), int64(to))
	if err != nil {
		return m.explain("read what was used", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	seal := newSealer()
	for rows.Next() {
		var at int64
		var key string
		var sealed sql.RawBytes
		if err := rows.Scan(&at, &key, &sealed); err != nil {
			return m.explain("read what was used", err)
		}
		u := usage{unit.Tick(at), job.Key(key)}
		a, err := u.open(seal, m.cluster, sealed)
		if err != nil {
			return m.company.words.damaged("read what was used in cluster "+m.cluster, err)
		}
		if err := sink.Used(ledger.UsedHour{Hour: u.hour, Job: u.job, Used: a}); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return m.explain("read what was used", err)
	}
	return nil
}

// A usage names what a job used in an hour.
type usage struct {
	hour unit.Tick
	job  job.Key
}

func (u usage) key(cluster string) []byte { return append(hourKey(cluster, u.hour), u.job...) }

func (u usage) open(seal *sealer, cluster string, sealed []byte) (ledger.Amounts, error) {
	b, err := seal.open(u.key(cluster), sealed)
	if err != nil {
		return ledger.Amounts{}, err
	}
	r := pack.NewReader(b)
	a := ledger.ReadAmounts(&r)
	return a, r.Err()
}

func hourKey(cluster string, hour unit.Tick) []byte {
	return []byte(cluster + "\x00" + strconv.FormatInt(int64(hour), 10) + "\x00")
}

// A step is the sink of one transaction. What was used is summed before it is
// written: one block of facts may speak of a job a thousand times.
type step struct {
	ctx     context.Context //nolint:containedctx // a step lives as long as the call that it is a part of
	tx      *sql.Tx
	bind    func(query string) string
	cluster string
	seal    *sealer
	used    map[usage]ledger.Amounts
	failed  error // the database's, not the fold's
}

// Hour stores an hour that is over.
func (s *step) Hour(h ledger.Hour) error {
	b := ledger.EncodeHour(h)
	s.seal.reset(len(b) + sealSize)
	_, s.failed = s.tx.ExecContext(s.ctx, s.bind("INSERT INTO hour VALUES (?, ?, ?)"), s.cluster, int64(h.From), s.seal.seal(hourKey(s.cluster, h.From), b))
	return s.failed
}

// Used adds to what a job used.
func (s *step) Used(u ledger.UsedHour) (err error) {
	k := usage{u.Hour, u.Job}
	s.used[k], err = s.used[k].Add(u.Used)
	return err
}

// flush stores what jobs used, on top of what is stored.
func (s *step) flush() (err error) {
	if len(s.used) == 0 {
		return nil
	}
	get, err := s.tx.PrepareContext(s.ctx, s.bind("SELECT value FROM used WHERE cluster = ? AND hour = ? AND job = ?"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, get.Close()) }()
	put, err := s.tx.PrepareContext(s.ctx, s.bind("INSERT INTO used VALUES (?, ?, ?, ?) ON CONFLICT (cluster, hour, job) DO UPDATE SET value = excluded.value"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, put.Close()) }()
	order := slices.SortedFunc(maps.Keys(s.used), func(a, b usage) int {
		return cmp.Or(cmp.Compare(a.hour, b.hour), cmp.Compare(a.job, b.job))
	})
	for _, k := range order {
		sum := s.used[k]
		var sealed []byte
		switch err = get.QueryRowContext(s.ctx, s.cluster, int64(k.hour), string(k.job)).Scan(&sealed); {
		case err == nil:
			var before ledger.Amounts
			if before, err = k.open(s.seal, s.cluster, sealed); err != nil {
				return fault.Internal.Errorf("what job %s used in hour %s: %w; restore the database from a backup", k.job, ledger.Stamp(k.hour), err)
			}
			if sum, err = sum.Add(before); err != nil {
				return err
			}
		case !errors.Is(err, sql.ErrNoRows):
			return err
		}
		b := ledger.AppendAmounts(nil, sum)
		s.seal.reset(len(b) + sealSize)
		if _, err := put.ExecContext(s.ctx, s.cluster, int64(k.hour), string(k.job), s.seal.seal(k.key(s.cluster), b)); err != nil {
			return err
		}
	}
	return nil
}
