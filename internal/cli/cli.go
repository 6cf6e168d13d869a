// Package cli is the covey command line: a client of the API that can do
// nothing which a script could not do over the wire. The commands that run the
// server, an agent or both are handed in as functions.
//
// It promises the same JSON and the same exit codes from one version to the
// next, errors on standard error alone, and that no command waits for ever
// unless it was asked to follow something.
package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// An Env is everything that the command line takes from its surroundings.
type Env struct {
	Args       []string // after the program's name
	Stdin      io.Reader
	Stdout     io.Writer
	Stderr     io.Writer
	OutTTY     bool // Stdout is a terminal
	ErrTTY     bool // Stderr is a terminal: progress may be shown on it
	Getenv     func(string) string
	Home       string // the user's home directory
	User       string // the user's name, for getpass
	Dir        string // where the user stands
	Executable string // this program, for child processes
	Version    string

	// The parts of the platform. A nil one has no command.
	Server func(context.Context, ServerFlags) error
	Agent  func(context.Context, AgentFlags) error
	Dev    func(context.Context, DevFlags) error

	// Simulate answers what would happen. A nil one has no command.
	Simulate func(context.Context, SimulateFlags) (Simulated, error)
}

// Run runs one command and returns the exit code of the program. When ctx
// ends, the user wants it to stop.
func Run(ctx context.Context, env Env) int {
	out := &output{w: env.Stdout}
	env.Stdout = out
	a := &app{env: env}
	root := a.root()
	root.SetArgs(env.Args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		err = out.lost()
	}
	code := exitCode(ctx, err)
	if err != nil && (code != Interrupted || !isInterrupt(err)) {
		_, _ = fmt.Fprintln(env.Stderr, "covey: "+printable(message(err)))
	}
	return code
}

// app is one run of the command line.
type app struct {
	env    Env
	output string // table or json

	server, tokenFile, caFile string
}

func (a *app) root() *cobra.Command {
	var version bool
	root := &cobra.Command{
		Use:   "covey",
		Short: "Run, meter and bill work on a pool of machines",
		Long: `Covey runs many teams' services and jobs on one pool of machines, and tells
every team what it used and what it cost.

A job key is cluster/role/environment/name. Its first part chooses the server:
--server or COVEY_SERVER, else the cluster as covey cluster add stored it, else
the covey dev that runs here.`,
		SilenceErrors: true, SilenceUsage: true, Args: noVerb,
		RunE: func(cmd *cobra.Command, args []string) error {
			if version {
				return a.printVersion(cmd)
			}
			return help(cmd, args)
		},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if a.output != "table" && a.output != "json" {
				return badParameter("-o %.40q; want table or json", a.output)
			}
			return nil
		},
	}
	root.SetOut(a.env.Stdout)
	root.SetErr(a.env.Stderr)
	root.SetIn(a.env.Stdin)
	root.SetFlagErrorFunc(flagError)
	root.Flags().BoolVar(&version, "version", false, "print what covey version prints")
	f := root.PersistentFlags()
	f.StringVarP(&a.output, "output", "o", "table", "table or json")
	f.StringVar(&a.server, "server", "", "URL of the server (COVEY_SERVER)")
	f.StringVar(&a.tokenFile, "token-file", "", "file that holds the token (COVEY_TOKEN holds the token itself)")
	f.StringVar(&a.caFile, "ca-file", "", "file with the certificate that the server's one is signed by (COVEY_CA)")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
	root.AddGroup(&cobra.Group{ID: "work", Title: "Work:"}, &cobra.Group{ID: "money", Title: "Money:"},
		&cobra.Group{ID: "pool", Title: "Pool:"}, &cobra.Group{ID: "run", Title: "Run the platform:"})
	root.AddCommand(a.jobs(), a.tasks(), a.config(), a.bill(), a.usage(), a.machines(), a.quotas(), a.clusters(), a.state(), a.tokens(), a.version())
	root.AddCommand(a.platform()...)
	root.SetHelpCommand(&cobra.Command{Use: "help [command]", Short: "Help about any command", RunE: helpAbout, ValidArgsFunction: cobra.NoFileCompletions})
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			c.Args, c.RunE = noVerb, help
		}
	}
	return root
}

// group is a command that only holds others.
func group(id, use, short string, subs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, GroupID: id, Args: noVerb, RunE: help}
	c.AddCommand(subs...)
	return c
}

func help(cmd *cobra.Command, _ []string) error { return cmd.Help() }

// helpAbout is the verb help, which without this would take any word.
func helpAbout(cmd *cobra.Command, args []string) error {
	about, rest, err := cmd.Root().Find(args)
	if err != nil || len(rest) > 0 {
		return noVerb(cmp.Or(about, cmd.Root()), append(rest, args...))
	}
	about.InitDefaultHelpFlag()
	return about.Help()
}

// noVerb refuses a verb that does not exist and says which were meant.
func noVerb(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	text := fmt.Sprintf("%s has no command %.80q", cmd.CommandPath(), args[0])
	cmd.SuggestionsMinimumDistance = 2
	if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
		text += "; did you mean " + strings.Join(like, " or ") + "?"
	} else {
		text += "; see " + cmd.CommandPath() + " --help"
	}
	return badCommand("%s", text)
}

// exactly wants so many arguments, named in the command's usage.
func exactly(n int) cobra.PositionalArgs { return between(n, n) }

func between(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= least && len(args) <= most {
			return nil
		}
		want := cmd.Use[strings.IndexByte(cmd.Use+" ", ' '):]
		return badCommand("%s takes%s, and %d arguments were given; see %s --help", cmd.CommandPath(), argsText(want), len(args), cmd.CommandPath())
	}
}

func argsText(want string) string {
	if strings.TrimSpace(want) == "" {
		return " no arguments"
	}
	return want
}

// flagError tells a flag that does not exist from one with a bad value.
func flagError(cmd *cobra.Command, err error) error {
	text := err.Error()
	if strings.HasPrefix(text, "unknown ") || strings.HasPrefix(text, "bad flag syntax") || strings.HasPrefix(text, "flag needs") {
		return badCommand("%s; see %s --help", text, cmd.CommandPath())
	}
	if what, why, ok := strings.Cut(text, ": strconv.Parse"); ok { // which speaks of Go
		want := map[string]string{"Int": "a whole number", "Uint": "a whole number, not below 0", "Bool": "true or false", "Float": "a number"}[why[:strings.IndexByte(why+":", ':')]]
		if strings.HasSuffix(why, "value out of range") {
			want = "a smaller number"
		}
		text = what + "; want " + cmp.Or(want, "another value")
	}
	return badParameter("%s", text)
}

// timeout adds the flag that bounds a wait.
func timeout(f *pflag.FlagSet, into *time.Duration, otherwise time.Duration) {
	f.DurationVar(into, "timeout", otherwise, "give up after this long (exit code 9)")
}

func (a *app) version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version of this program", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.printVersion(cmd) },
	}
}

func (a *app) printVersion(cmd *cobra.Command) error {
	return a.print(cmd, map[string]string{"version": a.env.Version}, func(w io.Writer) {
		_, _ = fmt.Fprintln(w, "covey "+a.env.Version)
	})
}
