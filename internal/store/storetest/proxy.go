package storetest

import (
	"bytes"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// A Proxy stands between a server and its database and can do what networks do.
type Proxy struct {
	to       string
	listener net.Listener

	mu      sync.Mutex
	cut     bool
	swallow bool
	commit  bool // swallow from the next commit on
	conns   map[net.Conn]bool
}

// StartProxy returns a proxy to a port of 127.0.0.1, which ends with the test.
func StartProxy(tb testing.TB, port int) *Proxy {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it does not wait
	if err != nil {
		tb.Fatal(err)
	}
	p := &Proxy{to: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), listener: l, conns: map[net.Conn]bool{}}
	go p.serve()
	tb.Cleanup(func() {
		_ = l.Close()
		p.Cut()
	})
	return p
}

// URL returns url with the proxy's address instead of the database's.
func (p *Proxy) URL(url string) string {
	return strings.Replace(url, p.to, p.listener.Addr().String(), 1)
}

// Cut ends every connection, and lets no new one in until Heal.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	for c := range p.conns {
		_ = c.Close()
		delete(p.conns, c)
	}
}

// Swallow lets everything through to the database, and no answer back, until Heal.
func (p *Proxy) Swallow() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.swallow = true
}

// SwallowCommit lets the next commit of a cluster through, and neither its
// answer nor any later one, until Heal.
func (p *Proxy) SwallowCommit() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.commit = true
}

// Heal ends Cut and Swallow. Answers that were swallowed are lost.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut, p.swallow, p.commit = false, false, false
}

func (p *Proxy) serve() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		go p.join(c)
	}
}

// hold remembers a connection so that it can be cut. It is false when none is let in.
func (p *Proxy) hold(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		p.conns[c] = true
	}
	return !p.cut
}

func (p *Proxy) join(c net.Conn) {
	db, err := net.Dial("tcp", p.to) //nolint:noctx // on loopback
	if err != nil {
		_ = c.Close()
		return
	}
	if p.hold(c, db) {
		go func() {
			_, _ = io.Copy(db, c)
			_ = db.Close()
		}()
		_, _ = io.Copy(answers{p, c}, db)
	}
	_ = c.Close()
	_ = db.Close()
}

// answers are what the database says.
type answers struct {
	p *Proxy
	net.Conn
}

func (a answers) Write(b []byte) (int, error) {
	a.p.mu.Lock()
	if a.p.commit && bytes.Contains(b, []byte("INSERT 0 ")) && bytes.Contains(b, []byte("COMMIT\x00")) {
		a.p.swallow = true // the answer to all of a batch
	}
	gone := a.p.swallow
	a.p.mu.Unlock()
	if gone {
		return len(b), nil
	}
	return a.Conn.Write(b)
}
