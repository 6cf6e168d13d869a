package evaluate

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/fault"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == Command {
		os.Exit(Main(os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}

const hello = `
include('common.aurora')
jobs = [Service(cluster = 'dev', role = 'www-data', environment = 'prod', name = 'hello',
  task = SequentialTask(processes = [Process(name = 'hello', cmdline = 'sleep ' + how_long)],
    resources = Resources(cpu = 0.1, ram = 16*MB, disk = 16*MB)))]
`

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for n, s := range files {
		if err := os.WriteFile(filepath.Join(dir, n), []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSameBytes holds that what the command line collects means the same to
// the server.
func TestSameBytes(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"hello.aurora": hello, "common.aurora": "how_long = '60'\n"})
	key := "dev/www-data/prod/hello"
	here, err := Run(t.Context(), os.Args[0], Request{Main: "hello.aurora", Dir: dir, User: "ann", Key: key})
	if err != nil {
		t.Fatal(err)
	}
	if len(here.Files) != 2 {
		t.Errorf("collected %d files; want 2", len(here.Files))
	}
	cluster, there, err := One(t.Context(), os.Args[0], Request{Main: "hello.aurora", Files: here.Files, User: "ann", Key: key})
	if err != nil {
		t.Fatal(err)
	}
	if cluster != "dev" {
		t.Errorf("cluster is %q", cluster)
	}
	if diff := cmp.Diff(here.Jobs[0].Job, there); diff != "" {
		t.Errorf("the job here and there (-here +there):\n%s", diff)
	}
	if got := there.Config.Task.Processes[0].Cmdline; got != "sleep 60" {
		t.Errorf("cmdline is %q", got)
	}
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"endless.aurora":  "x = 0\nwhile True:\n  x = x + 1\n",
		"large.aurora":    "x = 'x' * 1000\nfor i in range(40): x = x + x\n",
		"absolute.aurora": "include('/etc/passwd')\n",
		"hello.aurora":    hello, "common.aurora": "how_long = '60'\n",
	})
	for _, tt := range []struct {
		main, key string
		want      fault.Kind
		says      string
	}{
		{"missing.aurora", "", fault.Invalid, "missing.aurora"},
		{"endless.aurora", "", fault.Invalid, "endless.aurora"},
		{"large.aurora", "", fault.Invalid, "large.aurora"},
		{"absolute.aurora", "", fault.Invalid, "is not below"},
		{".", "", fault.Invalid, "folder"},
		{"hello.aurora", "dev/www-data/prod/helo", fault.NotFound, "dev/www-data/prod/hello"},
	} {
		_, err := Run(t.Context(), os.Args[0], Request{Main: tt.main, Dir: dir, Key: tt.key})
		if fault.Of(err) != tt.want || err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s %s: %v (%v); want %v and %q", tt.main, tt.key, err, fault.Of(err), tt.want, tt.says)
		}
	}
}

func TestEnded(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, os.Args[0], Request{Main: "x"}); fault.Of(err) != fault.Unavailable {
		t.Errorf("an evaluation that nobody waits for: %v; want unavailable", err)
	}
}

// A child that is killed by somebody is not taken for one that used up its limits.
func TestKilled(t *testing.T) {
	c, err := Prepare(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Run(t.Context(), Request{Main: "x"}); fault.Of(err) != fault.Unavailable || !strings.Contains(err.Error(), "killed") {
		t.Errorf("got %v of kind %v; want unavailable, for it was killed", err, fault.Of(err))
	}
}
