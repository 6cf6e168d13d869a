package cli

import (
	"context"
	"flag"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/covey-platform/covey/internal/cli/evaluate"
)

var update = flag.Bool("update", false, "write what commands print into the scripts")

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == evaluate.Command {
		os.Exit(evaluate.Main(os.Stdin, os.Stdout))
	}
	testscript.Main(m, map[string]func(){"covey": func() {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		os.Exit(Run(ctx, processEnv()))
	}})
}

func processEnv() Env {
	dir, _ := os.Getwd()
	exe, _ := os.Executable()
	return Env{
		Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Home: os.Getenv("HOME"),
		User: "ann", Dir: dir, Executable: exe, Version: "v0.0.1",
		Server: func(context.Context, ServerFlags) error { return nil },
		Agent:  func(context.Context, AgentFlags) error { return nil },
		Dev: func(ctx context.Context, f DevFlags) error {
			return f.Ready(ctx, os.Getenv("COVEY_SERVER"), worldToken)
		},
	}
}

// TestScripts runs the commands as people do. Scripts below a server's folder
// have one, with one machine.
func TestScripts(t *testing.T) {
	for _, dir := range []string{"testdata/alone", "testdata/server"} {
		t.Run(dir, func(t *testing.T) {
			testscript.Run(t, testscript.Params{
				Dir: dir, UpdateScripts: *update, RequireExplicitExec: true,
				Setup: func(e *testscript.Env) error {
					e.Setenv("HOME", e.WorkDir+"/home")
					if strings.HasSuffix(dir, "server") {
						w, url := startWorld(t.Context(), t)
						e.Values["world"] = w
						e.Setenv("COVEY_SERVER", url)
						e.Setenv("COVEY_TOKEN", worldToken)
					}
					return nil
				},
				Cmds: map[string]func(*testscript.TestScript, bool, []string){"code": code, "interrupted": interrupted, "letgo": letGo, "eventually": eventually},
			})
		})
	}
}

// letGo ends the tasks that linger in the script's world.
func letGo(ts *testscript.TestScript, neg bool, args []string) {
	ts.Value("world").(*world).letGo(ts, neg, args)
}

// eventually runs a command until its output holds a pattern.
func eventually(ts *testscript.TestScript, _ bool, args []string) {
	want := regexp.MustCompile("(?m)" + args[0])
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		err := ts.Exec(args[1], args[2:]...)
		got := ts.ReadFile("stdout")
		if err == nil && want.MatchString(got) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%v: got %v, %s; want %s", args[1:], err, got, want)
		}
	}
}

// code runs a command and wants an exit code: code 5 covey job.
func code(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("%v: exit code %s; want %s", args[1:], got, args[0])
	}
}

// interrupted runs a command in this process with a context that has ended,
// and wants the exit code of Ctrl-C.
func interrupted(ts *testscript.TestScript, _ bool, args []string) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	exe, _ := os.Executable()
	e := Env{
		Args: args, Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: io.Discard, Getenv: ts.Getenv,
		Home: ts.Getenv("HOME"), Dir: ts.Getenv("WORK"), Executable: exe,
	}
	if got := Run(ctx, e); got != Interrupted {
		ts.Fatalf("interrupted %v: exit code %d; want %d", args, got, Interrupted)
	}
}

// full is a disk without room.
type full struct{ left int }

func (f *full) Write(p []byte) (int, error) {
	n := min(f.left, len(p))
	f.left -= n
	if n < len(p) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

// Output that is lost is an error, in whatever form it was asked for.
func TestOutputLost(t *testing.T) {
	_, url := startWorld(t.Context(), t)
	for _, args := range [][]string{
		{"job", "list"},
		{"job", "list", "-o", "json"},
		{"machine", "list"},
		{"version"},
		{"--help"},
	} {
		for _, room := range []int{0, 3, 1 << 20} {
			var stderr strings.Builder
			e := Env{Args: args, Stdin: strings.NewReader(""), Stdout: &full{room}, Stderr: &stderr, Home: t.TempDir(), Getenv: func(n string) string {
				return map[string]string{"COVEY_SERVER": url, "COVEY_TOKEN": worldToken}[n]
			}}
			want, says := Unknown, "no space left on device"
			if room > 1<<10 {
				want, says = OK, ""
			}
			if got := Run(t.Context(), e); got != want || !strings.Contains(stderr.String(), says) {
				t.Errorf("%v with room for %d bytes: got exit code %d, %q; want %d and %q", args, room, got, stderr.String(), want, says)
			}
		}
	}
}
