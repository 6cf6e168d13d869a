package runtime

import (
	"net"
	"sync"
)

// lines are the connections to agents. A slow one never holds the task up: it
// is dropped, connects again and gets the status of that moment.
type lines struct {
	mu   sync.Mutex
	all  map[net.Conn]chan []byte
	last []byte // the latest status
	done sync.WaitGroup
}

const lineQueue = 64 // statuses that an agent may be behind

func (l *lines) add(c net.Conn) {
	hello, err := encodeFrame(frame{Op: opHello, Version: version})
	if err != nil {
		_ = c.Close()
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == nil {
		l.all = map[net.Conn]chan []byte{}
	}
	q := make(chan []byte, lineQueue)
	q <- hello
	if l.last != nil {
		q <- l.last
	}
	l.all[c] = q
	l.done.Go(func() {
		for b := range q {
			if _, err := c.Write(b); err != nil {
				break
			}
		}
		_ = c.Close()
	})
}

func (l *lines) drop(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if q, ok := l.all[c]; ok {
		delete(l.all, c)
		close(q)
		_ = c.Close()
	}
}

func (l *lines) publish(s Status) {
	b, err := encodeFrame(frame{Op: opStatus, Status: &s})
	if err != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = b
	for c, q := range l.all {
		select {
		case q <- b:
		default:
			delete(l.all, c)
			close(q)
			_ = c.Close()
		}
	}
}

// close sends what is queued and hangs up; it does not wait for agents that
// do not read.
func (l *lines) close() <-chan struct{} {
	l.mu.Lock()
	for c, q := range l.all {
		delete(l.all, c)
		close(q)
	}
	l.mu.Unlock()
	done := make(chan struct{})
	go func() {
		l.done.Wait()
		close(done)
	}()
	return done
}
