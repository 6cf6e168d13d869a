// Command covey is the whole platform in one program: the command line, the
// server, the agent, and what an agent starts for its tasks.
package main

import (
	"cmp"
	"context"
	"os"
	"os/signal"
	"os/user"
	"syscall"

	"golang.org/x/term"

	"github.com/covey-platform/covey/internal/agentd"
	"github.com/covey-platform/covey/internal/cli"
	"github.com/covey-platform/covey/internal/cli/evaluate"
	"github.com/covey-platform/covey/internal/runtime"
	"github.com/covey-platform/covey/internal/server"
	"github.com/covey-platform/covey/internal/simulate"
)

// version is set when a release is built.
var version = "dev"

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	if len(args) > 0 {
		env := runtime.Env{Args: args[1:], Stderr: os.Stderr}
		switch args[0] {
		case runtime.SuperviseArg:
			return runtime.SuperviseMain(env)
		case evaluate.Command:
			return evaluate.Main(os.Stdin, os.Stdout)
		}
	}
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as nohup does; else a terminal that is closed is a Ctrl-C
		ends = append(ends, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	defer stop()
	e := env(args)
	e.Server = server.Program{Self: e.Executable, Version: version, Err: os.Stderr}.Server
	e.Dev = server.Program{Self: e.Executable, Version: version, Err: os.Stderr}.Dev
	e.Agent = agentd.Program{Self: e.Executable, Version: version, Err: os.Stderr}.Agent
	e.Simulate = simulate.Run
	return cli.Run(ctx, e)
}

func env(args []string) cli.Env {
	e := cli.Env{
		Args: args, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Version: version,
		OutTTY: term.IsTerminal(int(os.Stdout.Fd())), ErrTTY: term.IsTerminal(int(os.Stderr.Fd())),
	}
	e.Home, _ = os.UserHomeDir()
	e.Dir, _ = os.Getwd()
	e.Executable, _ = os.Executable()
	e.User = cmp.Or(os.Getenv("LOGNAME"), os.Getenv("USER"))
	if u, err := user.Current(); err == nil && e.User == "" {
		e.User = u.Username
	}
	return e
}
