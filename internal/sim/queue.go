package sim

import "github.com/covey-platform/covey/internal/unit"

// event is something that happens at a time. Events of one time happen in the
// order in which they were asked for. A message to or from a machine is lost
// when the machine is not in reach at that time.
type event struct {
	at  unit.Tick
	seq int
	via *node // nil: it is no message
	do  func()
}

func (e event) before(o event) bool { return e.at < o.at || e.at == o.at && e.seq < o.seq }

// queue is a heap of events, the next one first.
type queue []event

func (q *queue) push(e event) {
	h := append(*q, e)
	i := len(h) - 1
	for i > 0 && e.before(h[(i-1)/2]) {
		h[i] = h[(i-1)/2]
		i = (i - 1) / 2
	}
	h[i] = e
	*q = h
}

// pop takes the next event. There must be one.
func (q *queue) pop() event {
	h := *q
	first, last := h[0], h[len(h)-1]
	h[len(h)-1] = event{}
	h = h[:len(h)-1]
	*q = h
	if len(h) == 0 {
		return first
	}
	i := 0
	for {
		next := 2*i + 1
		if next >= len(h) {
			break
		}
		if next+1 < len(h) && h[next+1].before(h[next]) {
			next++
		}
		if !h[next].before(last) {
			break
		}
		h[i] = h[next]
		i = next
	}
	h[i] = last
	return first
}
