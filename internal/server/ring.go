package server

import (
	"context"
	"sync"
	"time"

	"github.com/covey-platform/covey/internal/rpc"
	"github.com/covey-platform/covey/internal/store"
)

// ring is the servers of a cluster, as one of them knows it. Its methods may be
// called by several goroutines at once.
type ring struct {
	me store.Member

	mu      sync.Mutex
	members []store.Member
	said    time.Time // when this server last said that it lives
}

// announce says that this server lives, once in a while, and learns of others.
func (r *ring) announce(ctx context.Context, s sharedStore) error {
	r.mu.Lock()
	due := time.Since(r.said) >= renewal-lookEvery
	r.mu.Unlock()
	if !due {
		return nil
	}
	members, err := s.Announce(ctx, r.me)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.members, r.said = members, time.Now()
	return nil
}

// all returns the servers that live.
func (r *ring) all() []store.Member {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.members
}

// servers returns the servers that live, for the wire. Who leads but has said
// nothing for long is not among them.
func (r *ring) servers(leader string) (out []rpc.Server) {
	for _, m := range r.all() {
		out = append(out, rpc.Server{Name: m.Name, URL: m.URL, Leads: m.Name == leader})
	}
	return out
}
