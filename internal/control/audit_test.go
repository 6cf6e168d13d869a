package control_test

import (
	"testing"

	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/fault"
)

// TestAuditBeside: turns go on while an audit is under way, and what they
// change is no difference.
func TestAuditBeside(t *testing.T) {
	w := newWorld(t)
	w.do("machines m1-5 cpu=4")
	w.do("create www/prod/web 0-9")
	a := w.loop.BeginAudit()
	for _, line := range []string{"create www/prod/more 0-19", "kill www/prod/web 3-5", "end www/prod/web/0.1=FAILED", "silent m2", "wait 31s", "back m2"} {
		w.do(line)
	}
	a.Build()
	w.do("create www/prod/last 0-3")
	if err := w.loop.EndAudit(a); err != nil {
		t.Error(err)
	}
	if err := w.loop.EndAudit(a); err != nil {
		t.Errorf("an audit that has ended: %v; want nothing", err)
	}
	a = w.loop.BeginAudit()
	a.Build()
	w.do("leader")
	w.do("machines m6")
	if err := w.loop.EndAudit(a); err != nil {
		t.Errorf("an audit of an earlier leader: %v; want nothing", err)
	}
}

// TestAuditFinds: an index that differs is named and made anew.
func TestAuditFinds(t *testing.T) {
	w := newWorld(t)
	w.do("machines m1 cpu=4")
	w.do("create www/prod/web 0-9") // some of them wait
	control.Forget(w.loop)
	if err := w.loop.Audit(); fault.Of(err) != fault.Internal {
		t.Errorf("an index that knows nothing: %v; want an error of kind internal", err)
	}
	if err := w.loop.Audit(); err != nil {
		t.Errorf("after it was made anew: %v", err)
	}
}
