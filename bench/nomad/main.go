// Nomad places the jobs of a file on the machines of another with the
// scheduler of HashiCorp Nomad, and says how long it took. There is no server
// and no client: only the scheduler over Nomad's state store in memory, by the
// harness of its own tests.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/hashicorp/nomad/nomad/structs"

	"github.com/covey-platform/covey/bench/workload"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "nomad:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout io.Writer) error {
	var flags workload.Flags
	set := flag.NewFlagSet("nomad", flag.ContinueOnError)
	flags.AddTo(set)
	kind := set.String("type", structs.JobTypeService, "type of every job: service, which looks at log2 of the machines for each task, or batch, which looks at two")
	if err := set.Parse(args); err != nil {
		return err
	}
	if *kind != structs.JobTypeService && *kind != structs.JobTypeBatch {
		return fmt.Errorf("-type is %q; want service or batch", *kind)
	}
	return flags.Run(stdout, "Nomad", "binpack (default), jobs of type "+*kind, func(machines []workload.Machine) (workload.Peer, error) {
		return newPeer(machines, *kind)
	})
}
