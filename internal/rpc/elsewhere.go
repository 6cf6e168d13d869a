package rpc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	pb "github.com/covey-platform/covey/api/covey/v1"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
)

// A Server is one of several servers of a cluster.
type Server struct {
	Name  string
	URL   string // where clients reach it
	Leads bool
}

// A Following is what a server knows that does not lead.
type Following struct {
	Since time.Time // what the view shows was the newest then
}

// leader returns the URL of the leader, empty if none is known.
func (v View) leader() string {
	for _, s := range v.Servers {
		if s.Leads {
			return s.URL
		}
	}
	return ""
}

// urls returns where the cluster's servers are reached.
func (v View) urls() []string {
	var out []string
	for _, s := range v.Servers {
		out = append(out, s.URL)
	}
	return out
}

// Elsewhere is the answer of a server that follows to what only the leader can
// do. Its kind is Unavailable; a caller that understands it goes to the leader.
func (v View) Elsewhere() error {
	e := &elsewhereError{leader: v.leader(), servers: v.urls()}
	if v.Following != nil {
		e.silent = time.Since(v.Following.Since)
	}
	return fault.Unavailable.Errorf("%w", e)
}

// Unreached is [View.Elsewhere] of a server that cannot hand a call on to the
// leader, and why: nothing has happened, and another server may do better.
func (v View) Unreached(why error) error {
	return fault.Unavailable.Errorf("%w", &elsewhereError{leader: v.leader(), servers: v.urls(), why: why.Error()})
}

type elsewhereError struct {
	leader  string // URL; empty: nobody leads now
	servers []string
	why     string        // what keeps this server from it; may be empty
	silent  time.Duration // for which this server has not heard of its database
}

// silence is how long a server may hear nothing of its database while all is
// well: in less another one leads when the leader was lost.
const silence = 5 * time.Second

func (e *elsewhereError) Error() string {
	if e.silent > silence {
		return fmt.Sprintf("this server does not lead, and has not reached the cluster's database for %v: while nobody does, no server leads, and tasks run on. See that the database answers, and try again", e.silent.Round(time.Second))
	}
	if e.leader == "" {
		return "this server does not lead, and no server does now; try again"
	}
	if e.why != "" {
		return "this server does not lead, and cannot hand the call on to who does: " + e.why
	}
	return "this server does not lead; " + e.leader + " does"
}

// The metadata of an elsewhereError.
const (
	leaderHeader  = "Covey-Leader"
	serversHeader = "Covey-Servers"
)

// lostHeader names, in the headers of an agent's session, the server that it
// has just not reached.
const lostHeader = "Covey-Lost"

// turnover is how long an agent that has lost its leader waits here for the
// next one: longer than a lease, and shorter than its patience.
const turnover = 5 * time.Second

// awaitLeading returns nil if this server leads. Otherwise it says who does,
// when somebody does whom the caller has not just lost: a server that was
// started again may lead again, in a later epoch than the caller has seen.
func (s *services) awaitLeading(ctx context.Context, lost string, seen machine.Epoch) error {
	late := time.NewTimer(turnover)
	defer late.Stop()
	for {
		news := s.b.Published() // before looking, so that no change is missed
		v := s.b.View()
		if v.Following == nil {
			return nil
		}
		if l := v.leader(); l != "" && (l != lost || v.Epoch.Compare(seen) > 0) {
			return v.Elsewhere()
		}
		select {
		case <-ctx.Done():
			return ended(ctx.Err())
		case <-late.C:
			return v.Elsewhere()
		case <-news:
		}
	}
}

// elsewhereToWire puts where the leader is into an error's metadata.
func elsewhereToWire(e *elsewhereError) *connect.Error {
	w := connect.NewError(connect.CodeUnavailable, errors.New(e.Error()))
	w.Meta().Set(leaderHeader, e.leader)
	w.Meta().Set(serversHeader, strings.Join(e.servers, ","))
	return w
}

// elsewhereFromWire reports whether err is from a server that does not lead,
// and where the leader and the other servers are.
func elsewhereFromWire(err error) (leader string, servers []string, ok bool) {
	e, is := errors.AsType[*connect.Error](err)
	if !is || len(e.Meta().Values(leaderHeader)) == 0 {
		return "", nil, false
	}
	servers = strings.Split(e.Meta().Get(serversHeader), ",")
	servers = slices.DeleteFunc(servers, func(s string) bool { return s == "" })
	return e.Meta().Get(leaderHeader), servers, true
}

// IsElsewhere reports whether an answer to a call of one message is that of a
// server that does not lead, given its headers.
func IsElsewhere(h http.Header) bool { return len(h.Values(leaderHeader)) > 0 }

// Refuse answers a call with an error, in the form that its caller speaks.
func Refuse(w http.ResponseWriter, r *http.Request, err error) {
	if e := connect.NewErrorWriter().Write(w, r, toWire(err)); e != nil {
		refuse(w, err)
	}
}

func serversToWire(all []Server) (out []*pb.Server) {
	for _, s := range all {
		out = append(out, &pb.Server{Name: text(s.Name), Url: text(s.URL), Leads: s.Leads})
	}
	return out
}
