package cli

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/unit"
)

// typed runs a command in this process, as a user of the world at url does.
func typed(t *testing.T, url string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	env := map[string]string{"COVEY_SERVER": url, "COVEY_TOKEN": worldToken}
	code = Run(t.Context(), Env{
		Args: args, Stdin: new(bytes.Buffer), Stdout: &out, Stderr: &errs,
		Getenv: func(name string) string { return env[name] }, Home: t.TempDir(), User: "ann", Dir: t.TempDir(),
	})
	return code, out.String(), errs.String()
}

// lose has n more machines say hello and vanish.
func (w *world) lose(ctx context.Context, t *testing.T, n int) {
	t.Helper()
	for i := range n {
		id := machine.ID(fmt.Sprintf("lost%d", i))
		err := w.turn(func(t *control.Turn) error {
			return t.Hello(control.Hello{Session: "s", UID: "uid-1", Machine: machine.Machine{
				ID: id, Host: "127.0.0.1", Capacity: unit.Resources{CPU: 1000, RAM: 1 << 30, Disk: 1 << 30}, Boot: "b",
			}})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	w.mu.Lock()
	w.begun = w.begun.Add(-40 * time.Second) // nobody was heard for so long
	w.mu.Unlock()
	if err := w.turn(func(*control.Turn) error { return nil }); err != nil {
		t.Fatal(err)
	}
}

// Who has rescheduling resumed is told what the server did about it.
func TestClusterResume(t *testing.T) {
	w, url := startWorld(t.Context(), t)
	w.lose(t.Context(), t, 6)
	if code, out, errs := typed(t, url, "cluster", "resume"); code != 0 || out != "rescheduling goes on, at a bounded rate\n" {
		t.Errorf("got exit code %d, %q, %q; want what was done", code, out, errs)
	}
	w.lose(t.Context(), t, 6)
	want := "{\n  \"resumed\": true,\n  \"text\": \"rescheduling goes on, at a bounded rate\",\n  \"stopped\": 0\n}\n"
	if code, out, errs := typed(t, url, "cluster", "resume", "-o", "json"); code != 0 || out != want {
		t.Errorf("got exit code %d, %q, %q; want %q", code, out, errs, want)
	}
}
