package state

import (
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/unit"
)

// A Term is the lease of a cluster: who leads it, and until when nobody else
// may. Its methods are the rules that every [Lease] follows; stores keep it in
// one row.
type Term struct {
	Holder string // empty: nobody
	Epoch  machine.Epoch
	Until  unit.Tick
}

// Acquire returns the term in which holder leads, from now for at least ttl.
// Who leads already may start anew: its old epoch ends. Incarnation is the
// cluster's, 0 if it is not known yet.
func (t Term) Acquire(holder string, incarnation uint64, now, ttl unit.Tick) (Term, error) {
	if holder == "" {
		return t, fault.Invalid.Errorf("a lease needs the name of its holder, which is empty")
	}
	if t.Holder != "" && t.Holder != holder && now < t.Until {
		return t, fault.Conflict.Errorf("%.80s leads in epoch %v until %s; stop it, or wait until then",
			t.Holder, t.Epoch, t.Until.Time().Format("2006-01-02 15:04:05.000 MST"))
	}
	e := machine.Epoch{Incarnation: max(1, incarnation, t.Epoch.Incarnation), N: t.Epoch.N + 1}
	return Term{holder, e, now + ttl}, nil
}

// Renew prolongs the term. Nobody has led since, so it does not matter whether
// the lease had run out.
func (t Term) Renew(holder string, e machine.Epoch, now, ttl unit.Tick) (Term, error) {
	if err := t.held(holder, e); err != nil {
		return t, err
	}
	t.Until = max(t.Until, now+ttl)
	return t, nil
}

// Release ends the term. Its epoch is never used again.
func (t Term) Release(holder string, e machine.Epoch) (Term, error) {
	if err := t.held(holder, e); err != nil {
		return t, err
	}
	return Term{Epoch: t.Epoch}, nil
}

func (t Term) held(holder string, e machine.Epoch) error {
	if t.Holder != holder {
		return fault.Conflict.Errorf("%.80s does not lead; %s", holder, t)
	}
	return t.Leads(e)
}

// Leads returns an error of kind Conflict unless epoch e may still commit.
func (t Term) Leads(e machine.Epoch) error {
	if t.Holder == "" || t.Epoch != e {
		return fault.Conflict.Errorf("epoch %v is over; %s", e, t)
	}
	return nil
}

// String says who leads.
func (t Term) String() string {
	if t.Holder == "" {
		return "nobody leads"
	}
	return t.Holder + " leads in epoch " + t.Epoch.String()
}

// After returns where a store that stands at h stands after b, or an error if
// b does not follow h: of kind Conflict if something else was committed since,
// of kind Internal if b contradicts itself.
func (h Head) After(b *Batch) (Head, error) {
	if b.Base != h.Rev {
		return h, fault.Conflict.Errorf("the commit follows revision %d, the store stands at %d; load it again", b.Base, h.Rev)
	}
	if b.Rev <= b.Base || b.At < h.At {
		return h, fault.Internal.Errorf("the commit goes back: from revision %d at %d to %d at %d", b.Base, h.At, b.Rev, b.At)
	}
	next := Head{b.Rev, h.Seq, b.At}
	for i := range b.Records {
		next.Seq++
		if b.Records[i].Seq != next.Seq {
			return h, fault.Internal.Errorf("record %d of the commit has number %d; want %d", i+1, b.Records[i].Seq, next.Seq)
		}
	}
	return next, nil
}
