package runtime

import (
	"net"
	"time"

	"github.com/covey-platform/covey/internal/agent"
	"github.com/covey-platform/covey/internal/runtime/inside"
)

// BootTime is a clock that nobody sets, and that goes on while the machine is
// suspended: the time since it was started.
func BootTime() time.Duration { return inside.BootTime() }

// bound begins the lease of an exclusive task, before anything of it runs.
func (s *supervisor) bound() (err error) {
	if s.rec.Until == 0 {
		return nil
	}
	s.until, s.status.Until = s.rec.Until, s.rec.Until
	if s.doom, err = inside.NewDoom(); err != nil {
		return err
	}
	return s.doom.At(s.until + inside.KernelAfter)
}

// lifeUntil is the lease by the clock of the life. That one stands still while
// the machine is suspended; the timer of the kernel does not.
func (s *supervisor) lifeUntil() time.Duration {
	if s.until == 0 {
		return 0
	}
	return max(1, s.now()+s.until-BootTime())
}

// renewed prolongs the lease, unless it is over.
func (s *supervisor) renewed(until time.Duration) {
	if s.until == 0 || s.ended != nil || BootTime() >= s.until || until <= s.until {
		return
	}
	s.until, s.status.Until = until, until
	if err := s.doom.At(until + inside.KernelAfter); err != nil {
		s.log.Error("the lease", "error", err) // the timer stays where it was, and ends the task
	}
	s.init.tell(inside.Order{Op: "lease", Until: until})
	s.step(agent.Renewed{Until: s.lifeUntil()})
	if s.saveDue == nil {
		s.saveDue = time.After(saveAfter)
	}
}

// Renew prolongs the leases of all exclusive tasks to until, of [BootTime]. A
// task whose lease is over stays dead.
func (r *Runtime) Renew(until time.Duration) {
	r.mu.Lock()
	r.lease = max(r.lease, until)
	var conns []net.Conn
	for _, e := range r.tasks {
		if e.rec.Until != 0 && !e.status.Ended && e.conn != nil {
			conns = append(conns, e.conn)
		}
	}
	r.mu.Unlock()
	for _, c := range conns {
		sendLease(c, until)
	}
}

// sendLease does not wait for a supervisor that does not read: it stands still,
// and its task ends.
func sendLease(c net.Conn, until time.Duration) {
	b, err := encodeFrame(frame{Op: opLease, Version: version, Until: until})
	if err != nil {
		return
	}
	_ = c.SetWriteDeadline(time.Now().Add(leaseWrite))
	_, _ = c.Write(b) // what is not heard is said again with the next renewal
}

const leaseWrite = 20 * time.Millisecond
