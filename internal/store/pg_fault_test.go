package store_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/store"
	"github.com/covey-platform/covey/internal/store/storetest"
	"github.com/covey-platform/covey/internal/unit"
)

// await polls until something is so.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come", what)
		}
	}
}

func openPg(t *testing.T, url, name string) *store.Postgres {
	t.Helper()
	s, err := store.OpenPostgres(t.Context(), store.PostgresConfig{URL: url, Name: name, TTL: time.Minute})
	if err != nil {
		t.Fatalf("OpenPostgres: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// counter is a batch that writes the number of its revision under one key.
func counter(e machine.Epoch, head state.Head) *state.Batch {
	return one(e, head, "counter", fmt.Append(nil, head.Rev+1))
}

func pgHead(t *testing.T, s *store.Postgres) state.Head {
	t.Helper()
	head, err := s.Load(t.Context(), func(state.Row) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return head
}

func TestPostgresFaults(t *testing.T) {
	server := storetest.StartPostgres(t, "fsync=off", "max_prepared_transactions=0")
	for name, test := range map[string]func(*testing.T, *storetest.Postgres){
		"an answer is lost":                 pgLostAnswer,
		"the connection is cut":             pgCut,
		"a leader stands in a transaction":  pgStandsStill,
		"a stale leader":                    pgStale,
		"many ask at once":                  pgManyAsk,
		"the clock is the database's":       pgClock,
		"servers that start together":       pgTogether,
		"what is refused at open":           pgOpen,
		"the feed":                          pgFollow,
		"members":                           pgMembers,
		"days of records":                   pgDays,
		"a database that takes no writes":   pgReadOnly,
		"a statement that the disk refuses": pgNoRoom,
	} {
		t.Run(name, func(t *testing.T) { test(t, server) })
	}
}

// pgLostAnswer commits while the answer is lost: the store says that nobody
// knows, and whoever loads sees that it happened.
func pgLostAnswer(t *testing.T, server *storetest.Postgres) {
	url := server.Database(t)
	proxy := storetest.StartProxy(t, server.Port)
	s, watcher := openPg(t, proxy.URL(url), "a"), openPg(t, url, "b")
	e, err := s.Acquire(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if err = s.Commit(t.Context(), counter(e, state.Head{})); err != nil {
		t.Fatal(err)
	}
	head := pgHead(t, watcher)
	proxy.SwallowCommit()
	done := make(chan error, 1)
	go func() { done <- s.Commit(t.Context(), counter(e, head)) }()
	await(t, "the commit", func() bool { return pgHead(t, watcher).Rev == head.Rev+1 })
	proxy.Cut()
	refused(t, <-done, fault.Timeout, "nobody knows whether it happened", "must be loaded again")
	proxy.Heal()
	if got := pgHead(t, s); got.Rev != head.Rev+1 {
		t.Errorf("the store stands at %d, want %d", got.Rev, head.Rev+1)
	}
	refused(t, s.Commit(t.Context(), counter(e, head)), fault.Conflict, "stands at 2")
}

// pgCut cuts the connection before a commit: it is not known to have happened,
// did not, and the same store goes on when the network does.
func pgCut(t *testing.T, server *storetest.Postgres) {
	proxy := storetest.StartProxy(t, server.Port)
	s := openPg(t, proxy.URL(server.Database(t)), "a")
	e, err := s.Acquire(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	proxy.Cut()
	refused(t, s.Commit(t.Context(), counter(e, state.Head{})), fault.Unavailable, "not reached")
	if _, err = s.Records(t.Context(), 0, 1); fault.Of(err) != fault.Unavailable {
		t.Errorf("Records = %v, want unavailable", err)
	}
	proxy.Heal()
	if err = s.Commit(t.Context(), counter(e, state.Head{})); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond) // it is the idle connection that breaks
	proxy.Cut()
	refused(t, s.Commit(t.Context(), counter(e, pgHeadAt(1))), fault.Unavailable, "not reached")
	proxy.Heal()
	if err = s.Commit(t.Context(), counter(e, pgHead(t, s))); err != nil {
		t.Fatal(err)
	}
	if got := pgHead(t, s); got.Rev != 2 {
		t.Errorf("the store stands at %d, want 2", got.Rev)
	}
}

// pgHeadAt is where the counter's store stands after so many commits.
func pgHeadAt(n int) state.Head {
	return state.Head{Rev: state.Rev(n), Seq: state.Seq(n), At: unit.Tick(n)}
}

// pgStandsStill: a leader that stopped in the middle of a transaction keeps
// nobody from taking over.
func pgStandsStill(t *testing.T, server *storetest.Postgres) {
	url := server.Database(t)
	a, err := store.OpenPostgres(t.Context(), store.PostgresConfig{URL: url, Name: "a", TTL: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	old, err := a.Acquire(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	stuck, err := pgx.Connect(t.Context(), url+"?application_name=covey%20a&search_path=covey")
	if err != nil {
		t.Fatal(err)
	}
	defer stuck.Close(context.Background())
	if _, err = stuck.Exec(t.Context(), "BEGIN; UPDATE meta SET rev = rev + 1"); err != nil {
		t.Fatal(err)
	}
	b := openPg(t, url, "b")
	began := time.Now()
	next, err := b.Acquire(t.Context(), "b")
	if err != nil || next.Compare(old) <= 0 || time.Since(began) > 3*time.Second {
		t.Fatalf("Acquire = %v, %v after %v, want a later epoch than %v at once", next, err, time.Since(began), old)
	}
	if got := pgHead(t, b); got.Rev != 0 {
		t.Errorf("the store stands at %d, want 0: what was under way is undone", got.Rev)
	}
}

// pgManyAsk: however many wait for an answer of the database, the lease is renewed.
func pgManyAsk(t *testing.T, server *storetest.Postgres) {
	url := server.Database(t)
	a := openPg(t, url, "a")
	epoch, err := a.Acquire(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	other, err := pgx.Connect(t.Context(), url+"?search_path=covey")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(context.Background())
	if _, err = other.Exec(t.Context(), "BEGIN; LOCK TABLE history, records IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	for range 20 {
		asking.Go(func() { _, _ = a.History(ctx, state.HistoryQuery{Job: "www-data/prod/hello", Instance: -1, Limit: 1}) })
		asking.Go(func() { _, _ = a.Records(ctx, 0, 1) })
	}
	await(t, "that all connections wait for an answer", func() bool {
		var n int
		err := other.QueryRow(t.Context(), "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted").Scan(&n)
		return err == nil && n >= 6
	})
	short, end := context.WithTimeout(t.Context(), 3*time.Second) // they wait for 5 s
	defer end()
	if err = a.Renew(short, "a", epoch); err != nil {
		t.Errorf("Renew: %v; want that it needs nobody's connection", err)
	}
}

// pgStale: the database refuses a leader that does not know it was replaced.
func pgStale(t *testing.T, server *storetest.Postgres) {
	url := server.Database(t)
	a, err := store.OpenPostgres(t.Context(), store.PostgresConfig{URL: url, Name: "a", TTL: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	old, err := a.Acquire(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if err = a.Commit(t.Context(), counter(old, state.Head{})); err != nil {
		t.Fatal(err)
	}
	b := openPg(t, url, "b")
	if _, err = b.Acquire(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	head := pgHead(t, b)
	refused(t, a.Commit(t.Context(), counter(old, head)), fault.Conflict, "epoch 1.1 is over", "b leads")
	refused(t, a.Renew(t.Context(), "a", old), fault.Conflict, "b leads")
	_, err = a.Acquire(t.Context(), "a")
	refused(t, err, fault.Conflict, "b leads")
	if got := pgHead(t, b); got != head {
		t.Errorf("the store stands at %+v, want %+v", got, head)
	}
	term, err := a.Leader(t.Context())
	if err != nil || term.Holder != "b" {
		t.Errorf("Leader = %+v, %v, want b", term, err)
	}
}

// pgClock: a lease runs out by the clock that all servers share.
func pgClock(t *testing.T, server *storetest.Postgres) {
	url := server.Database(t)
	a, err := store.OpenPostgres(t.Context(), store.PostgresConfig{URL: url, Name: "a", TTL: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	e, err := a.Acquire(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	b := openPg(t, url, "b")
	_, err = b.Acquire(t.Context(), "b")
	refused(t, err, fault.Conflict, "a leads")
	await(t, "the end of the lease", func() bool { _, err := b.Acquire(t.Context(), "b"); return err == nil })
	refused(t, a.Renew(t.Context(), "a", e), fault.Conflict, "b leads")
}

func pgTogether(t *testing.T, server *storetest.Postgres) {
	url := server.Database(t)
	done := make(chan error, 6)
	for i := range cap(done) {
		go func() {
			s, err := store.OpenPostgres(t.Context(), store.PostgresConfig{URL: url, Name: fmt.Sprint("s", i)})
			if err == nil {
				err = s.Close()
			}
			done <- err
		}()
	}
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func pgOpen(t *testing.T, server *storetest.Postgres) {
	refuse := func(url string, kind fault.Kind, words ...string) {
		t.Helper()
		s, err := store.OpenPostgres(t.Context(), store.PostgresConfig{URL: url, Name: "a"})
		if err == nil {
			_ = s.Close()
		}
		refused(t, err, kind, words...)
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
	refuse("postgres://u:hunter2@127.0.0.1:1/d", fault.Unavailable, "127.0.0.1/d", "is not reached")
	refuse("postgres://u:hunter2@127.0.0.1:port/d", fault.Invalid, "postgres://USER@HOST:PORT/DATABASE")
	refuse(server.URL("nowhere"), fault.Invalid, "there is no database", "createdb")
	other := server.Database(t)
	server.Exec(t, other, "CREATE SCHEMA covey; CREATE TABLE covey.cats (name text)")
	refuse(other, fault.Invalid, "some other program")
	newer := server.Database(t)
	_ = openPg(t, newer, "a").Close()
	server.Exec(t, newer, "INSERT INTO covey.schema_version (version_id, is_applied) VALUES (3, true)")
	_ = openPg(t, newer, "a").Close() // one ahead is used as it is
	server.Exec(t, newer, "INSERT INTO covey.schema_version (version_id, is_applied) VALUES (4, true)")
	refuse(newer, fault.Invalid, "version 4", "wants 2")
	stranger := server.Database(t)
	server.Exec(t, stranger, "CREATE ROLE stranger LOGIN")
	refuse(strings.Replace(stranger, "postgres@", "stranger@", 1), fault.Denied, "may not", "owner")
}

// pgFollow holds the feed to what a load gives.
func pgFollow(t *testing.T, server *storetest.Postgres) {
	url := server.Database(t)
	a, b := openPg(t, url, "a"), openPg(t, url, "b")
	e, err := a.Acquire(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if err = a.Commit(t.Context(), counter(e, state.Head{})); err != nil {
		t.Fatal(err)
	}
	_, err = b.Steps(t.Context(), state.Head{})
	refused(t, err, fault.Compacted, "revisions 0 and 1") // nobody followed then
	_, err = b.Steps(t.Context(), state.Head{Rev: 9})
	refused(t, err, fault.Compacted, "an older copy")
	for _, s := range []struct {
		*store.Postgres
		name string
	}{{b, "b"}, {a, "a"}} {
		if _, err := s.Announce(t.Context(), store.Member{Name: s.name}); err != nil {
			t.Fatal(err)
		}
	}
	mine := map[string]string{}
	at, err := b.Load(t.Context(), func(r state.Row) error { mine[r.Table.String()+r.Key] = string(r.Value); return nil })
	if err != nil {
		t.Fatal(err)
	}
	if steps, err := b.Steps(t.Context(), at); err != nil || len(steps) != 0 {
		t.Fatalf("Steps = %v, %v, want none", steps, err)
	}
	head := at
	for i := range 10 {
		batch := counter(e, head)
		batch.Rows = append(batch.Rows, state.Row{Table: state.TaskTable, Key: fmt.Sprint(i % 4), Value: fmt.Append([]byte{}, i)})
		if i%3 == 2 {
			batch.Rows = append(batch.Rows, state.Row{Table: state.TaskTable, Key: fmt.Sprint((i + 1) % 4)})
		}
		if err := a.Commit(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		head = state.Head{Rev: batch.Rev, Seq: head.Seq + 1, At: batch.At}
	}
	steps, err := b.Steps(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range steps {
		if s.Base != at.Rev {
			t.Fatalf("a step follows %d, want %d", s.Base, at.Rev)
		}
		at = s.Head
		for _, r := range s.Rows {
			mine[r.Table.String()+r.Key] = string(r.Value)
			if r.Value == nil {
				delete(mine, r.Table.String()+r.Key)
			}
		}
	}
	want := map[string]string{}
	end, err := b.Load(t.Context(), func(r state.Row) error { want[r.Table.String()+r.Key] = string(r.Value); return nil })
	if err != nil || at != end {
		t.Errorf("followed to %+v, want %+v, %v", at, end, err)
	}
	if d := cmp.Diff(want, mine); d != "" {
		t.Errorf("rows (-loaded +followed):\n%s", d)
	}
	heads := map[state.Rev]state.Head{}
	for _, s := range steps {
		heads[s.Head.Rev] = s.Head
	}
	server.Exec(t, url, "DELETE FROM covey.feed WHERE rev = 5")
	if steps, err = b.Steps(t.Context(), heads[3]); err != nil || len(steps) != 1 {
		t.Errorf("Steps before a gap = %d, %v, want 1", len(steps), err)
	}
	_, err = b.Steps(t.Context(), heads[4])
	refused(t, err, fault.Compacted, "load everything")
	_, err = b.Steps(t.Context(), state.Head{Rev: 6, At: 1}) // of another history
	refused(t, err, fault.Compacted, "load everything")
	server.Exec(t, url, `UPDATE covey.feed SET rows = substr(rows, 1, length(rows) - 1)`)
	_, err = b.Steps(t.Context(), heads[6])
	refused(t, err, fault.Internal, "revision 7", "damaged")
	if err = a.TrimFeed(t.Context()); err != nil {
		t.Error(err)
	}
}

func pgMembers(t *testing.T, server *storetest.Postgres) {
	url := server.Database(t)
	a, b := openPg(t, url, "a"), openPg(t, url, "b")
	one, two := store.Member{Name: "a", URL: "http://127.0.0.1:1", Token: "h", Owner: "ann"}, store.Member{Name: "b", URL: "http://127.0.0.1:2"}
	if _, err := a.Announce(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	got, err := b.Announce(t.Context(), two)
	if d := cmp.Diff([]store.Member{one, two}, got); err != nil || d != "" {
		t.Errorf("members %v (-want +got):\n%s", err, d)
	}
	server.Exec(t, url, "UPDATE covey.server SET seen = seen - interval '11 s' WHERE name = 'a'")
	if got, err = b.Announce(t.Context(), two); err != nil || len(got) != 1 {
		t.Errorf("members %v, %v, want b alone", got, err)
	}
	if err = b.Leave(t.Context(), "b"); err != nil {
		t.Error(err)
	}
	if got, err = a.Announce(t.Context(), one); err != nil || len(got) != 1 || got[0].Name != "a" {
		t.Errorf("members %v, %v, want a alone", got, err)
	}
}

const (
	day      = 24 * unit.Hour
	firstDay = 20_000 * day
)

func pgReadOnly(t *testing.T, server *storetest.Postgres) {
	url := server.Database(t)
	server.Exec(t, url, "ALTER DATABASE "+url[strings.LastIndex(url, "/")+1:]+" SET default_transaction_read_only = on")
	_, err := store.OpenPostgres(t.Context(), store.PostgresConfig{URL: url, Name: "a"})
	refused(t, err, fault.Unavailable, "read only")
}

// pgNoRoom: a commit that the database refuses has not happened, and the next
// one may.
func pgNoRoom(t *testing.T, server *storetest.Postgres) {
	url := server.Database(t)
	s := openPg(t, url, "a")
	e, err := s.Acquire(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	server.Exec(t, url, `CREATE FUNCTION covey.no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no space left on device' USING ERRCODE = '53100'; END $$;
		CREATE TRIGGER no_room BEFORE INSERT ON covey.job FOR EACH ROW EXECUTE FUNCTION covey.no_room()`)
	refused(t, s.Commit(t.Context(), counter(e, state.Head{})), fault.Exhausted, "no room", "nothing was changed")
	if got := pgHead(t, s); got != (state.Head{}) {
		t.Errorf("the store stands at %+v, want where it began", got)
	}
	server.Exec(t, url, "DROP TRIGGER no_room ON covey.job")
	if err := s.Commit(t.Context(), counter(e, state.Head{})); err != nil {
		t.Error(err)
	}
}
