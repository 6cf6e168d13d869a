package state

import (
	"cmp"
	"context"
	"slices"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// Mem is a [Store] and a [Lease] that remembers for as long as it lives, for
// tests and simulations. It holds what a database would: encoded rows, blocks
// of records, ended tasks. Unlike other stores it belongs to one goroutine.
// The zero Mem is empty and ready.
type Mem struct {
	Now func() unit.Tick // for the lease; nil: time stands still
	TTL unit.Tick        // how long a lease lasts
	// Fail, if set, is asked before each commit that would succeed. With an
	// error, the commit returns that error; with apply too, it has happened
	// nevertheless.
	Fail func(b *Batch) (apply bool, err error)

	head   Head
	term   Term
	rows   map[rowKey][]byte
	blocks []memBlock
	ended  []task.Task // oldest first
}

type memBlock struct {
	first, last Seq
	at          unit.Tick
	data        []byte
}

// MaxHistory bounds the answer to one [HistoryQuery].
const MaxHistory = 1000

// Validate reports what is wrong with the query, if anything.
func (q HistoryQuery) Validate() error {
	if q.Limit < 1 || q.Limit > MaxHistory {
		return fault.Invalid.Errorf("%d ended tasks asked for at once; want 1 to %d", q.Limit, MaxHistory)
	}
	return nil
}

// Limited reports what is wrong with a limit of things called what, if anything.
func limited(what string, limit int) error {
	if limit < 1 {
		return fault.Invalid.Errorf("at most %d %s asked for; want 1 or more", limit, what)
	}
	return nil
}

// Load yields every row, in the order of [Tables] and keys.
func (m *Mem) Load(ctx context.Context, yield func(Row) error) (Head, error) {
	order := make(map[Table]int)
	for i, t := range Tables() {
		order[t] = i
	}
	keys := make([]rowKey, 0, len(m.rows))
	for k := range m.rows {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b rowKey) int {
		return cmp.Or(cmp.Compare(order[a.table], order[b.table]), cmp.Compare(a.key, b.key))
	})
	for _, k := range keys {
		if err := ctx.Err(); err != nil {
			return Head{}, fault.Unavailable.Errorf("load ended early: %w", err)
		}
		if err := yield(Row{k.table, k.key, slices.Clone(m.rows[k])}); err != nil {
			return Head{}, err
		}
	}
	return m.head, nil
}

// Commit applies b.
func (m *Mem) Commit(ctx context.Context, b *Batch) error {
	if err := ctx.Err(); err != nil {
		return fault.Unavailable.Errorf("commit of revision %d did not begin: %w", b.Rev, err)
	}
	if err := m.term.Leads(b.Epoch); err != nil && !fault.Planted("stale-epoch-committed") {
		return err
	}
	next, err := m.head.After(b)
	if err != nil {
		return err
	}
	if m.Fail != nil {
		if apply, err := m.Fail(b); err != nil {
			if apply {
				m.apply(b, next)
			}
			return err
		}
	}
	m.apply(b, next)
	return nil
}

func (m *Mem) apply(b *Batch, next Head) {
	if m.rows == nil {
		m.rows = make(map[rowKey][]byte)
	}
	for _, r := range b.Rows {
		k := rowKey{r.Table, r.Key}
		if r.Value == nil {
			delete(m.rows, k)
		} else {
			m.rows[k] = slices.Clone(r.Value)
		}
	}
	if len(b.Records) > 0 {
		m.blocks = append(m.blocks, memBlock{m.head.Seq + 1, next.Seq, b.At, EncodeRecords(b.Records)})
	}
	for _, t := range b.Ended {
		i, _ := slices.BinarySearchFunc(m.ended, t, oldestFirst)
		m.ended = slices.Insert(m.ended, i, t)
	}
	m.head = next
}

// oldestFirst orders ended tasks.
func oldestFirst(a, b task.Task) int {
	return cmp.Or(cmp.Compare(a.Since, b.Since), a.ID.Compare(b.ID))
}

// Records returns up to limit records after seq after.
func (m *Mem) Records(_ context.Context, after Seq, limit int) ([]Record, error) {
	if err := limited("records", limit); err != nil {
		return nil, err
	}
	floor := m.head.Seq + 1
	if len(m.blocks) > 0 {
		floor = m.blocks[0].first
	}
	if err := m.head.Kept(after, floor); err != nil {
		return nil, err
	}
	var out []Record
	for _, b := range m.blocks {
		if b.last <= after {
			continue
		}
		if len(out) >= limit {
			break
		}
		recs, err := DecodeRecords(b.data)
		if err != nil {
			return nil, err
		}
		for _, r := range recs {
			if r.Seq > after && len(out) < limit {
				out = append(out, r)
			}
		}
	}
	return out, nil
}

// Kept reports whether every record after seq after is still there, given the
// first one that is.
func (h Head) Kept(after, floor Seq) error {
	switch {
	case after+1 < floor:
		return fault.Compacted.Errorf("records %d to %d are forgotten; take a fresh list", after+1, floor-1)
	case after > h.Seq:
		return fault.Compacted.Errorf("record %d does not exist, the last one is %d: the database was restored; take a fresh list", after, h.Seq)
	default:
		return nil
	}
}

// History returns ended tasks, newest first.
func (m *Mem) History(_ context.Context, q HistoryQuery) ([]task.Task, error) {
	if err := q.Validate(); err != nil {
		return nil, err
	}
	var out []task.Task
	for _, t := range slices.Backward(m.ended) {
		if len(out) == q.Limit {
			break
		}
		if t.ID.Job == q.Job && (q.Instance < 0 || t.ID.Instance == q.Instance) {
			out = append(out, t)
		}
	}
	return out, nil
}

// Trim forgets what q no longer keeps.
func (m *Mem) Trim(_ context.Context, q TrimQuery) (more bool, err error) {
	if err := limited("rows to trim", q.Limit); err != nil {
		return false, err
	}
	left := q.Limit
	for left > 0 && len(m.blocks) > 0 && m.blocks[0].at < q.RecordsBefore && m.blocks[0].last <= q.UpTo {
		m.blocks = m.blocks[1:]
		left--
	}
	have := make(map[job.Key]int)
	for _, t := range m.ended {
		have[t.ID.Job]++
	}
	m.ended = slices.DeleteFunc(m.ended, func(t task.Task) bool {
		goes := left > 0 && (t.Since < q.EndedBefore || have[t.ID.Job] > q.PerJob && t.Since < q.KeepEnded)
		if goes {
			have[t.ID.Job]--
			left--
		}
		return goes
	})
	return left == 0, nil
}

// Acquire makes holder the leader.
func (m *Mem) Acquire(_ context.Context, holder string) (machine.Epoch, error) {
	c := Cluster{}
	if row, ok := m.rows[rowKey{ClusterTable, ClusterKey()}]; ok {
		var err error
		if c, err = DecodeCluster(row); err != nil {
			return machine.Epoch{}, bad(ClusterTable, ClusterKey(), err)
		}
	}
	t, err := m.term.Acquire(holder, c.Incarnation, m.now(), m.TTL)
	if err != nil {
		return machine.Epoch{}, err
	}
	m.term = t
	return t.Epoch, nil
}

// Renew prolongs the lease.
func (m *Mem) Renew(_ context.Context, holder string, e machine.Epoch) (err error) {
	m.term, err = m.term.Renew(holder, e, m.now(), m.TTL)
	return err
}

// Release gives the lease up.
func (m *Mem) Release(_ context.Context, holder string, e machine.Epoch) (err error) {
	m.term, err = m.term.Release(holder, e)
	return err
}

func (m *Mem) now() unit.Tick {
	if m.Now == nil {
		return 0
	}
	return m.Now()
}
