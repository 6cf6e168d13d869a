package agent

import (
	"time"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
)

// maxHealthMilli bounds an interval or timeout of a health check: a day.
const maxHealthMilli = 24 * 60 * 60 * 1000

// health counts answers as Aurora's health_checker.py does. The first attempt
// comes as soon as a process lives, each further one an interval after the
// answer to the last. Failures of the first ceil(initial/interval) attempts are
// forgiven; then more than MaxFailures in a row fail the task. Before the task
// was healthy it also fails as soon as the attempts left, of
// ceil(initial/interval) + MaxFailures + MinSuccesses, cannot make it so.
type health struct {
	on       bool
	every    time.Duration
	timeout  time.Duration
	forgiven int // attempts whose failure does not count
	attempts int // at most, before healthy
	failures int // in a row, tolerated
	wanted   int // successes in a row

	begun    bool
	inFlight bool
	due      time.Duration // of the next probe; in flight: of its answer
	seq      int           // of the latest probe, which is also the number of attempts
	bad      int           // failures in a row
	good     int           // successes in a row
	healthy  bool          // was so once
	failed   string        // why it is not, for good
}

func validHealth(h *job.Health) error {
	for _, v := range []struct {
		what  string
		milli int64
	}{{"interval", h.EveryMilli}, {"timeout", h.TimeoutMilli}} {
		if v.milli < 1 || v.milli > maxHealthMilli {
			return fault.Invalid.Errorf("the health check's %s is %d ms; want 1 ms to a day", v.what, v.milli)
		}
	}
	if h.InitialMilli < 0 || h.InitialMilli > maxHealthMilli {
		return fault.Invalid.Errorf("the health check's initial interval is %d ms; want 0 to a day", h.InitialMilli)
	}
	if h.MaxFailures < 0 || h.MinSuccesses < 0 {
		return fault.Invalid.Errorf("the health check allows %d failures and wants %d successes; want no negative number", h.MaxFailures, h.MinSuccesses)
	}
	return nil
}

// newHealth wants a configuration that passes validHealth.
func newHealth(c *job.Health) health {
	h := health{
		on:       true,
		every:    time.Duration(c.EveryMilli) * time.Millisecond,
		timeout:  time.Duration(c.TimeoutMilli) * time.Millisecond,
		forgiven: int((c.InitialMilli + c.EveryMilli - 1) / c.EveryMilli),
		failures: int(c.MaxFailures),
		wanted:   max(int(c.MinSuccesses), 1),
	}
	h.attempts = h.forgiven + h.failures + h.wanted
	return h
}

// start asks for the first probe, once.
func (h *health) start(now time.Duration) {
	if h.on && !h.begun {
		h.begun, h.due = true, now
	}
}

// next returns when probe has something to do.
func (h *health) next() (time.Duration, bool) { return h.due, h.begun && h.failed == "" }

// probe counts a probe that was not answered in time, and returns the next one
// when it is due. There is never more than one in flight.
func (h *health) probe(now time.Duration) (Probe, bool) {
	if !h.begun || h.failed != "" || now < h.due {
		return Probe{}, false
	}
	if h.inFlight {
		h.count(now, false, "no answer within "+h.timeout.String())
		return Probe{}, false
	}
	h.inFlight, h.due = true, now+h.timeout
	h.seq++
	return Probe{Seq: h.seq, Timeout: h.timeout}, true
}

// answered counts the answer to the probe in flight.
func (h *health) answered(now time.Duration, p Probed) {
	if h.inFlight && p.Seq == h.seq {
		h.count(now, p.OK || p.Snoozed, p.Why)
	}
}

func (h *health) count(now time.Duration, ok bool, why string) {
	h.inFlight, h.due = false, now+h.every
	if ok {
		h.bad = 0
		h.good++
		h.healthy = h.healthy || h.good >= h.wanted
		return
	}
	h.good = 0
	if h.seq <= h.forgiven {
		return
	}
	h.bad++
	if h.bad > h.failures || !h.healthy && h.attempts-h.seq < h.wanted {
		h.failed = why
		if why == "" {
			h.failed = "no reason given"
		}
	}
}
