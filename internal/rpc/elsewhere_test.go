package rpc

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/covey-platform/covey/internal/machine"
)

// follower shows one view for ever.
type follower struct {
	Backend
	view View
}

func (f *follower) View() View                 { return f.view }
func (f *follower) Published() <-chan struct{} { return nil }

// An agent that comes to a server that does not lead is told at once who does,
// unless that is the server which it has just lost: then it waits for the next.
func TestAwaitLeading(t *testing.T) {
	const here, there = "http://here", "http://there"
	epoch := func(n uint64) machine.Epoch { return machine.Epoch{Incarnation: 1, N: n} }
	following := func(leader string) View {
		return View{Epoch: epoch(5), Following: &Following{}, Servers: []Server{{URL: here, Leads: leader == here}, {URL: there, Leads: leader == there}}}
	}
	for name, c := range map[string]struct {
		view   View
		lost   string
		seen   uint64
		leader string
		waits  bool
	}{
		"it leads":                             {view: View{Epoch: epoch(5)}},
		"another leads":                        {view: following(there), seen: 5, leader: there},
		"the one that was lost":                {view: following(there), lost: there, seen: 5, leader: there, waits: true},
		"the one that was lost, in a new term": {view: following(there), lost: there, seen: 4, leader: there},
		"nobody":                               {view: following(""), lost: there, seen: 5, waits: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &services{b: &follower{view: c.view}}
				began := time.Now()
				err := s.awaitLeading(t.Context(), c.lost, epoch(c.seen))
				if c.view.Following == nil {
					if err != nil {
						t.Errorf("got %v; want none", err)
					}
					return
				}
				if e, ok := errors.AsType[*elsewhereError](err); !ok || e.leader != c.leader {
					t.Errorf("got %v; want that %q leads", err, c.leader)
				}
				if waited := time.Since(began) >= turnover; waited != c.waits {
					t.Errorf("waited %v; want %v", waited, c.waits)
				}
			})
		})
	}
}

// Who asks while the database is away is told of the database, not only that
// nobody leads.
func TestElsewhere(t *testing.T) {
	for _, c := range []struct {
		view View
		want string
	}{
		{View{}, "no server does now; try again"},
		{View{Following: &Following{Since: time.Now().Add(-time.Second)}}, "no server does now; try again"},
		{View{Following: &Following{Since: time.Now().Add(-time.Hour)}}, "has not reached the cluster's database for 1h0m0s"},
		{View{Following: &Following{Since: time.Now().Add(-time.Hour)}, Servers: []Server{{URL: "http://s1", Leads: true}}}, "database for 1h0m0s"},
		{View{Following: &Following{Since: time.Now()}, Servers: []Server{{URL: "http://s1", Leads: true}}}, "http://s1 does"},
	} {
		if got := c.view.Elsewhere().Error(); !strings.Contains(got, c.want) {
			t.Errorf("got %q; want it to say %q", got, c.want)
		}
	}
}
