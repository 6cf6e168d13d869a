package whatif

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestWriteMachines: what was written is read again as it was, and has no column
// that no machine needs.
func TestWriteMachines(t *testing.T) {
	const plain = "id,cpu_milli,mem_mib,gpu,net_mbps,rack,zone,gen\nm1,16000,65536,4,10000,r1,z1,g1\nm2,500,0,0,0,-,-,-\n"
	const full = "id,cpu_milli,mem_mib,gpu,net_mbps,rack,zone,gen,disk_mib,mode,avoid\nm1,1,2,3,4,r,z,g,5,SCHEDULED,1\nm2,1,2,3,4,r,z,g,0,NONE,0\n"
	for _, text := range []string{plain, full} {
		all, _, err := ReadMachines("in", strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := WriteMachines(&out, all); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(text, out.String()); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	}
}
