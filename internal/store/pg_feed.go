package store

import (
	"context"
	"encoding/binary"
	"slices"
	"time"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/unit"
)

// A Step is what one commit made of the rows, for servers that follow.
type Step struct {
	Base state.Rev  // the revision that it follows
	Head state.Head // where the store stands after it; Seq counts from the step before
	Rows []state.Row
}

// feedKept is how many commits the feed keeps: a server that is further behind
// reads everything again, which is less than these.
const feedKept = 500

// maxSteps and maxStepBytes bound one call of Steps.
const (
	maxSteps     = 200
	maxStepBytes = 64 << 20
)

// Steps returns some of the commits that follow after, in order; none when the
// store stands there. An error of kind Compacted says
// that some of them are gone, or were never kept.
func (s *Postgres) Steps(ctx context.Context, after state.Head) ([]Step, error) {
	const doing = "follow the leader"
	ctx, cancel := context.WithTimeout(ctx, pgAsk)
	defer cancel()
	// Read before the feed: what is committed between the two is in the feed too.
	head, _, err := s.meta(ctx, s.pool, "")
	if err != nil {
		return nil, s.explain(doing, err)
	}
	switch {
	case head.Rev == after.Rev && head.At == after.At:
		return nil, nil
	case head.Rev <= after.Rev:
		return nil, fault.Compacted.Errorf("the database %s stands at revision %d and not where it stood at %d: it is an older copy; load everything", s.name, head.Rev, after.Rev)
	}
	rows, err := s.pool.Query(ctx, "SELECT rev, base, base_at, rows FROM feed WHERE rev > $1 ORDER BY rev LIMIT $2", int64(after.Rev), maxSteps)
	if err != nil {
		return nil, s.explain(doing, err)
	}
	defer rows.Close()
	var out []Step
	seal, bytes := newSealer(), 0
	for bytes < maxStepBytes && rows.Next() {
		var rev, base, at int64
		var sealed []byte
		if err := rows.Scan(&rev, &base, &at, &sealed); err != nil {
			return nil, s.explain(doing, err)
		}
		if state.Rev(base) != after.Rev || unit.Tick(at) != after.At {
			break
		}
		bytes += len(sealed)
		block, err := seal.open(nil, sealed)
		if err != nil {
			return nil, pgDamaged(s.name, doing, fault.Internal.Errorf("the commit of revision %d in the feed: %w", rev, err))
		}
		step := Step{Base: after.Rev, Head: state.Head{Rev: state.Rev(rev), Seq: after.Seq}}
		if err = step.decode(block); err != nil {
			return nil, pgDamaged(s.name, doing, fault.Internal.Errorf("the commit of revision %d in the feed: %w", rev, err))
		}
		out, after = append(out, step), step.Head
	}
	if err := rows.Err(); err != nil {
		return nil, s.explain(doing, err)
	}
	if len(out) == 0 {
		return nil, fault.Compacted.Errorf("the commits between revisions %d and %d are not kept; load everything", after.Rev, head.Rev)
	}
	return out, nil
}

// Head returns where the store stands.
func (s *Postgres) Head(ctx context.Context) (state.Head, error) {
	head, _, err := s.meta(ctx, s.pool, "")
	return head, s.explain("read where the store stands", err)
}

// feedFormat is the version of a step's encoding, its first byte. Servers of
// one cluster may differ by one version: what is not understood is loaded.
const feedFormat = 1

// encodeStep returns what a commit made of the rows.
func encodeStep(b *state.Batch) []byte {
	out := append(make([]byte, 0, 24+rowsSize(b.Rows)), feedFormat)
	out = binary.AppendUvarint(out, uint64(b.At))
	out = binary.AppendUvarint(out, uint64(len(b.Records)))
	return appendRows(out, b.Rows)
}

// decode reads what encodeStep wrote. The rows share its memory.
func (s *Step) decode(b []byte) error {
	if len(b) == 0 || b[0] != feedFormat {
		return fault.Compacted.Errorf("it is of another format than %d; load everything", feedFormat)
	}
	in := scanner{rest: b[1:]}
	s.Head.At = unit.Tick(in.number())
	s.Head.Seq += state.Seq(in.number())
	return in.rows(func(r state.Row) { s.Rows = append(s.Rows, r) })
}

// A Member is a server of the cluster.
type Member struct {
	Name  string // of the holder of a lease
	URL   string // where clients reach it
	Token string // hash of a token that lets its operator in; empty: none
	Owner string // whom that token lets in
}

// memberGone is how long a server that says nothing still counts as living.
const memberGone = 10 * time.Second

// Announce says that the server me lives, and returns all that do, in order of
// name. From then on commits of this server go into the feed if there are others.
func (s *Postgres) Announce(ctx context.Context, me Member) ([]Member, error) {
	const doing = "announce this server"
	ctx, cancel := context.WithTimeout(ctx, pgLock)
	defer cancel()
	_, err := s.pool.Exec(ctx, "INSERT INTO server (name, url, token, owner, seen) VALUES ($1, $2, $3, $4, clock_timestamp())"+
		" ON CONFLICT (name) DO UPDATE SET url = excluded.url, token = excluded.token, owner = excluded.owner, seen = excluded.seen",
		me.Name, me.URL, me.Token, me.Owner)
	if err != nil {
		return nil, s.explain(doing, err)
	}
	rows, err := s.pool.Query(ctx, "SELECT name, url, token, owner FROM server WHERE seen > clock_timestamp() - make_interval(secs => $1) ORDER BY name LIMIT 100",
		memberGone.Seconds())
	if err != nil {
		return nil, s.explain(doing, err)
	}
	defer rows.Close()
	var out []Member
	for rows.Next() {
		var m Member
		if err := rows.Scan(&m.Name, &m.URL, &m.Token, &m.Owner); err != nil {
			return nil, s.explain(doing, err)
		}
		out = append(out, m)
	}
	if err := rows.Err(); err != nil {
		return nil, s.explain(doing, err)
	}
	s.followed.Store(slices.ContainsFunc(out, func(m Member) bool { return m.Name != me.Name }))
	return out, nil
}

// Leave says that this server ends. It forgets those that ended without a word
// long ago, and commits that nobody follows any more.
func (s *Postgres) Leave(ctx context.Context, name string) error {
	_, err := s.pool.Exec(ctx, "DELETE FROM server WHERE name = $1 OR seen < clock_timestamp() - interval '1 day'", name)
	return s.explain("leave", err)
}

// TrimFeed forgets commits that are so old that it takes less to load everything.
func (s *Postgres) TrimFeed(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pgAsk)
	defer cancel()
	_, err := s.pool.Exec(ctx, "DELETE FROM feed WHERE rev <= (SELECT rev FROM feed ORDER BY rev DESC OFFSET $1 LIMIT 1)", feedKept)
	return s.explain("trim the feed", err)
}
