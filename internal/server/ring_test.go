package server

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/rpc"
	"github.com/covey-platform/covey/internal/store"
)

// register is a store in which servers say that they live.
type register struct {
	sharedStore
	members []store.Member
	err     error
	said    int // how often
}

func (r *register) Announce(_ context.Context, me store.Member) ([]store.Member, error) {
	r.said++
	if r.err != nil {
		return nil, r.err
	}
	return append([]store.Member{me}, r.members...), nil
}

// A server says now and then that it lives, and learns who else does; when it
// cannot, it goes by what it knew and says so again at once.
func TestRing(t *testing.T) {
	a, b, c := store.Member{Name: "a", URL: "http://a"}, store.Member{Name: "b", URL: "http://b"}, store.Member{Name: "c", URL: "http://c"}
	s := &register{members: []store.Member{b}}
	r := ring{me: a}
	if got := r.servers("a"); got != nil {
		t.Errorf("before it said anything it knows %v", got)
	}
	say := func(want int) {
		t.Helper()
		if err := r.announce(t.Context(), s); !errors.Is(err, s.err) {
			t.Errorf("got %v; want %v", err, s.err)
		}
		if s.said != want {
			t.Errorf("it has said that it lives %d times; want %d", s.said, want)
		}
	}
	say(1)
	if d := cmp.Diff([]store.Member{a, b}, r.all()); d != "" {
		t.Errorf("members (-want +got):\n%s", d)
	}

	// Not again before it is time.
	r.said = time.Now().Add(time.Hour)
	s.members = []store.Member{b, c}
	say(1)
	if n := len(r.all()); n != 2 {
		t.Errorf("it knows %d members; want 2 until it looks again", n)
	}
	r.said = time.Now().Add(-renewal)
	say(2)

	// The store is away.
	s.err = errors.New("no database")
	r.said = time.Now().Add(-time.Hour)
	say(3)
	say(4)
	want := []rpc.Server{{Name: "a", URL: "http://a"}, {Name: "b", URL: "http://b", Leads: true}, {Name: "c", URL: "http://c"}}
	if d := cmp.Diff(want, r.servers("b")); d != "" {
		t.Errorf("servers for the wire (-want +got):\n%s", d)
	}
	for _, x := range r.servers("gone") {
		if x.Leads {
			t.Errorf("%s leads; want nobody to, since the leader has said nothing for long", x.Name)
		}
	}
}
