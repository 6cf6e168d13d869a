package simulate

import (
	"context"
	"flag"
	"os"
	"os/signal"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/covey-platform/covey/internal/cli"
)

var update = flag.Bool("update", false, "write what commands print into the scripts")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"covey": func() {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		os.Exit(cli.Run(ctx, cli.Env{
			Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Home: os.Getenv("HOME"),
			User: "ann", Version: "v0.0.1", Simulate: Run,
		}))
	}})
}

// TestScripts runs the command as people do.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", UpdateScripts: *update, RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir+"/home")
			if err := writeState(e.WorkDir); err != nil {
				return err
			}
			return os.CopyFS(e.WorkDir, os.DirFS("../../examples/simulate"))
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"code": code, "huge": huge},
	})
}

// code runs a command and wants an exit code: code 5 covey simulate.
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

// huge appends a line of a megabyte to a file.
func huge(ts *testscript.TestScript, _ bool, args []string) {
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_APPEND|os.O_WRONLY, 0)
	ts.Check(err)
	_, err = f.WriteString(strings.Repeat("x", 1<<20) + "\n")
	ts.Check(err)
	ts.Check(f.Close())
}
