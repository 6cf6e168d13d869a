package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	pb "github.com/covey-platform/covey/api/covey/v1"
)

func (a *app) tokens() *cobra.Command {
	return group("pool", "token", "Make and revoke tokens", a.tokenCreate(), a.tokenList(), a.tokenRevoke())
}

func (a *app) tokenCreate() *cobra.Command {
	var kind, subject string
	var ttl time.Duration
	c := &cobra.Command{
		Use: "create", Short: "Make a token; its secret is shown once", Args: exactly(0),
		Long: `Make a token; its secret is shown once.

A join token lets one agent in, once, and expires after 15 minutes. An admin
token acts as a user, and expires after 30 days.`,
		Example: "  covey token create --kind join > join.token\n  covey token create --kind admin --subject ann",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if kind != "join" && kind != "admin" {
				return badParameter("--kind %.40q; want join or admin", kind)
			}
			if ttl != 0 && ttl < time.Second {
				return badParameter("--ttl %v; want a second or more", ttl)
			}
			c, err := a.dial("")
			if err != nil {
				return err
			}
			r, err := ask(cmd.Context(), c.cluster.CreateToken, &pb.CreateTokenRequest{
				Kind: kind, Subject: subject, TtlSeconds: int64(ttl / time.Second),
			})
			if err != nil {
				return err
			}
			return a.print(cmd, map[string]string{"token": r.GetToken(), "expires": moment(r.GetExpiresUnixNanos())}, func(w io.Writer) {
				_, _ = fmt.Fprintln(w, r.GetToken())
			})
		},
	}
	f := c.Flags()
	f.StringVar(&kind, "kind", "join", "join or admin")
	f.StringVar(&subject, "subject", "", "join: the machine it is for (default any); admin: the user")
	f.DurationVar(&ttl, "ttl", 0, "how long it holds (default 15m for join, 720h for admin)")
	_ = c.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions([]string{"join", "admin"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (a *app) tokenList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List tokens without their secrets", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.dial("")
			if err != nil {
				return err
			}
			r, err := ask(cmd.Context(), c.cluster.ListTokens, &pb.ListTokensRequest{})
			if err != nil {
				return err
			}
			type token struct {
				ID      string `json:"id"`
				Kind    string `json:"kind"`
				Subject string `json:"subject"`
				Expires string `json:"expires"`
				Used    bool   `json:"used"`
			}
			out := []token{}
			var rows [][]string
			for _, t := range r.GetTokens() {
				x := token{t.GetId(), t.GetKind(), t.GetSubject(), moment(t.GetExpiresUnixNanos()), t.GetUsed()}
				out = append(out, x)
				rows = append(rows, []string{x.ID, x.Kind, x.Subject, first(x.Expires, "never"), fmt.Sprint(x.Used)})
			}
			return a.print(cmd, struct {
				Tokens []token `json:"tokens"`
			}{out}, func(w io.Writer) { table(w, []string{"TOKEN", "KIND", "FOR", "EXPIRES", "USED"}, rows) })
		},
	}
}

func (a *app) tokenRevoke() *cobra.Command {
	return &cobra.Command{
		Use: "revoke TOKEN", Short: "Make a token void, named as token list shows it", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.dial("")
			if err != nil {
				return err
			}
			if _, err = ask(cmd.Context(), c.cluster.RevokeToken, &pb.RevokeTokenRequest{Id: args[0]}); err != nil {
				return err
			}
			return a.print(cmd, map[string]string{"revoked": args[0]}, func(w io.Writer) {
				_, _ = fmt.Fprintf(w, "token %s is void\n", args[0])
			})
		},
	}
}
