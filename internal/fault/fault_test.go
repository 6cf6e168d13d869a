package fault_test

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/covey-platform/covey/internal/fault"
)

func TestOf(t *testing.T) {
	inner := fault.Invalid.Errorf("port %d: %w", 80, io.EOF)
	outer := fault.Denied.Errorf("machine m: %w", inner)
	for _, c := range []struct {
		err  error
		want fault.Kind
	}{
		{nil, fault.Internal},
		{io.EOF, fault.Internal},
		{inner, fault.Invalid},
		{outer, fault.Denied},
		{fmt.Errorf("more: %w", inner), fault.Invalid},
		{errors.Join(io.EOF, inner), fault.Invalid},
	} {
		if got := fault.Of(c.err); got != c.want {
			t.Errorf("%v: kind %v, want %v", c.err, got, c.want)
		}
	}
	if !errors.Is(outer, io.EOF) || outer.Error() != "machine m: port 80: EOF" {
		t.Errorf("%v: it wraps EOF: %v", outer, errors.Is(outer, io.EOF))
	}
}

func TestKindString(t *testing.T) {
	seen := map[string]bool{}
	for k := fault.Internal; k <= fault.Compacted; k++ {
		if s := k.String(); s == "" || seen[s] || s == fmt.Sprintf("kind(%d)", uint8(k)) {
			t.Errorf("kind %d is called %q", uint8(k), s)
		}
		seen[k.String()] = true
	}
	if got := fault.Kind(99).String(); got != "kind(99)" {
		t.Errorf("kind 99 is called %q", got)
	}
}

// TestNothingPlanted: a program is built without bugs on purpose.
func TestNothingPlanted(t *testing.T) {
	if fault.Planted("") && fault.Planted("double-start") {
		t.Error("bugs are planted")
	}
}
