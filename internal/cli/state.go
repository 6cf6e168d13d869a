package cli

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "github.com/covey-platform/covey/api/covey/v1"
)

func (a *app) state() *cobra.Command {
	return group("pool", "state", "Copy the state of a cluster", a.stateExport())
}

func (a *app) stateExport() *cobra.Command {
	var limit time.Duration
	x := &cobra.Command{
		Use: "export FILE", Short: "Write the cluster's jobs, tasks and machines to a file, for covey simulate", Args: exactly(1),
		Long: `Write the cluster's jobs, tasks and machines to a file, for covey simulate
--state. It holds no token, but the command lines of all jobs: keep it as you
keep them. A name that ends in .gz is packed; - is standard output.

The cluster goes on meanwhile: the file is as of one moment. It is written
beside its name and moved there when it is whole.`,
		Example: "  covey state export west.state.gz\n  covey simulate --state west.state.gz --kill rack=r7",
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit <= 0 {
				return badParameter("--timeout %v; want more than 0", limit)
			}
			c, err := a.dial("")
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), limit)
			defer cancel()
			if args[0] == "-" {
				_, err = export(ctx, c, cmd.OutOrStdout())
				return err
			}
			n, err := exportFile(ctx, c, args[0])
			if err != nil {
				return err
			}
			if info, err := os.Stat(args[0]); err == nil && info.Mode().IsRegular() {
				n = info.Size() // packed, if it is
			}
			return a.print(cmd, map[string]any{"file": args[0], "bytes": n}, func(w io.Writer) {
				_, _ = fmt.Fprintf(w, "%s: %d bytes\n", args[0], n)
			})
		},
	}
	timeout(x.Flags(), &limit, 10*time.Minute)
	return x
}

// export copies the server's state to w and returns how many bytes there were.
func export(ctx context.Context, c *client, w io.Writer) (n int64, err error) {
	s, err := c.cluster.ExportState(ctx, connect.NewRequest(&pb.ExportStateRequest{}))
	if err != nil {
		return 0, err
	}
	defer s.Close() //nolint:errcheck // it was read to its end, or failed
	for s.Receive() {
		some, err := w.Write(s.Msg().GetData())
		n += int64(some)
		if err != nil {
			return n, exitf(Unknown, "the state is not written: %w", err)
		}
	}
	return n, s.Err()
}

// exportFile writes the file whole or not at all. Others may not read it.
func exportFile(ctx context.Context, c *client, name string) (n int64, err error) {
	err = WriteWhole(name, 0o600, func(w io.Writer) error {
		if !strings.HasSuffix(name, ".gz") {
			n, err = export(ctx, c, w)
			return err
		}
		z := gzip.NewWriter(w)
		if n, err = export(ctx, c, z); err != nil {
			return err
		}
		return z.Close()
	})
	return n, err
}
