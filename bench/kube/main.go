// Kube places the jobs of a file on the machines of another with the scheduler
// of Kubernetes, and says how long it took. There is no API server and no
// kubelet: only the scheduler's own loop, queue, cache and default plugins.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/covey-platform/covey/bench/workload"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "kube:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout io.Writer) error {
	var flags workload.Flags
	var o options
	set := flag.NewFlagSet("kube", flag.ContinueOnError)
	flags.AddTo(set)
	set.StringVar(&o.limitBy, "limit-by", "spread", "what keeps max_per_host: spread (topology spread) or anti-affinity")
	set.BoolVar(&o.pack, "pack", false, "score by MostAllocated, which fills machines, not by the default LeastAllocated")
	if err := set.Parse(args); err != nil {
		return err
	}
	if o.limitBy != "spread" && o.limitBy != "anti-affinity" {
		return fmt.Errorf("-limit-by is %q; want spread or anti-affinity", o.limitBy)
	}
	return flags.Run(stdout, "kube-scheduler", o.String(), func(machines []workload.Machine) (workload.Peer, error) {
		return newPeer(machines, o)
	})
}
