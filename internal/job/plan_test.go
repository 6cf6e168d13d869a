package job

import (
	"strings"
	"testing"

	"github.com/covey-platform/covey/internal/fault"
)

func TestValidatePlan(t *testing.T) {
	procs := []Process{
		{Name: "a"},
		{Name: "b"},
		{Name: "c"},
		{Name: "d", Daemon: true},
		{Name: "e", Ephemeral: true},
		{Name: "f", Final: true},
		{Name: "g", Final: true},
		{Name: "h", Ephemeral: true},
	}
	named := func(names ...string) Task {
		t := Task{Name: "t"}
		for _, n := range names {
			t.Processes = append(t.Processes, Process{Name: n})
		}
		return t
	}
	ordered := func(chains ...string) Task {
		t := Task{Processes: procs}
		for _, c := range chains {
			t.Order = append(t.Order, strings.Fields(c))
		}
		return t
	}
	for _, c := range []struct {
		task Task
		want string // empty: valid
	}{
		{ordered(), ""},
		{ordered("", "a", "d", "f"), ""},
		{ordered("a b c", "a c", "a b"), ""},
		{ordered("a d", "a e", "e h", "f g"), ""},
		{ordered("a b", "b c", "c a"), "circle: a -> b -> c -> a; remove"},
		{ordered("b c b"), "circle: b -> c -> b;"},
		{ordered("a b", "b b"), "circle: b -> b;"},
		{ordered("a b c", "c b"), "circle: b -> c -> b;"},
		{ordered("g f", "f g"), "circle: f -> g -> f;"},
		{ordered("a x"), `process "x", which the task does not have; its processes are a, b, c, d, e, f, g, h`},
		{ordered("x"), `process "x"`},
		{ordered("d a"), `process "a" may not wait for "d": a daemon never completes`},
		{ordered("e a"), `process "a" may not wait for the ephemeral process "e"`},
		{ordered("e d"), `process "d" may not wait for the ephemeral process "e"`},
		{ordered("a f"), "order a, f joins final processes with others"},
		{ordered("f g a"), "order f, g, a joins final"},
		{named(), `task "t" has no process`},
		{named("a", "b", "a"), `two processes named "a"`},
		{named(""), "has no name"},
		{named(".a"), "starts with a period"},
		{named("a/b"), "slash"},
		{named("a\nb"), "control character"},
		{named("a b é"), ""},
		{named(strings.Repeat("x", 128)), ""},
		{named(strings.Repeat("x", 129)), "129 bytes; want at most 128"},
	} {
		err := c.task.ValidatePlan()
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%v %v: got %v; want none", c.task.Processes, c.task.Order, err)
		case c.want != "" && (err == nil || fault.Of(err) != fault.Invalid || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%v: got %v; want an invalid error with %q", c.task.Order, err, c.want)
		}
	}
}

func TestValidatePlanNamesFew(t *testing.T) {
	task := Task{Order: [][]string{{"nobody"}}}
	for c := 'a'; c <= 'z'; c++ {
		task.Processes = append(task.Processes, Process{Name: string(c)})
	}
	if err := task.ValidatePlan(); err == nil || !strings.HasSuffix(err.Error(), "i, j, ...") {
		t.Errorf("got %v; want ten names", err)
	}
}
