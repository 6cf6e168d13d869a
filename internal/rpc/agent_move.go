package rpc

import (
	"slices"

	"connectrpc.com/connect"
)

// maxServers bounds what an agent remembers of its cluster's servers.
const maxServers = 32

// Servers returns the URLs of the cluster's servers, as far as they are known.
func (a *Agent) Servers() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.servers)
}

// learn remembers servers that can be reached as the first one is.
func (a *Agent) learn(servers []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range servers {
		if secure, err := address(s); err == nil && secure == a.secure && !slices.Contains(a.servers, s) && len(a.servers) < maxServers {
			a.servers = append(a.servers, s)
		}
	}
}

// move turns to another server when the one at the end of w does not lead, or
// is not reached, and reports whether it did. Streams to the old one end with
// [ErrMoved].
func (a *Agent) move(w *way, err error) bool {
	leader, servers, follows := elsewhereFromWire(err)
	a.learn(servers)
	if !follows && connect.IsWireError(err) {
		return false // it was reached, and had its reasons
	}
	a.mu.Lock()
	if a.way != w || a.cfg.Beside != nil {
		a.mu.Unlock()
		return false
	}
	at := slices.Index(a.servers, w.url)
	to := a.servers[(at+1)%len(a.servers)]
	if follows && slices.Contains(a.servers, leader) {
		to = leader
	}
	if !follows {
		a.lost = w.url
	}
	if to == w.url {
		a.mu.Unlock()
		return false
	}
	a.way = a.open(to, a.config(a.cert))
	a.mu.Unlock()
	w.moved = true
	close(w.over)
	w.conns.CloseIdleConnections()
	return true
}

// unreached returns the server that was not reached last: one that follows it
// need not name it again.
func (a *Agent) unreached() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lost
}

// reached forgets what was not.
func (a *Agent) reached() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lost = ""
}

// movedError is why a session ended after which the agent turned to another
// server. It is [ErrMoved].
type movedError struct{ error }

func (e movedError) Unwrap() error        { return e.error }
func (e movedError) Is(target error) bool { return target == ErrMoved }
