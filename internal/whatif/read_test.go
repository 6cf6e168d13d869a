package whatif

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/unit"
)

// TestReadMachines reads columns by name, in any order, with attributes that
// are not there left out.
func TestReadMachines(t *testing.T) {
	const file = "\ufeff\"gen\",id,cpu_milli,mem_mib,gpu,net_mbps,rack,zone,disk_mib\r\n\"g1\",m1,4000,2048,2,100,r1,-,7\r\n\r\n"
	got, notes, err := ReadMachines("f", strings.NewReader(file))
	if err != nil || len(notes) > 0 {
		t.Fatal(err, notes)
	}
	want := []machine.Machine{{
		ID: "m1", Host: "m1", Up: true, Ports: machine.PortRange{From: 31000, To: 31999},
		Capacity:   unit.Resources{CPU: 4000, RAM: 2048 * unit.MiB, Disk: 7 * unit.MiB, GPU: 2000, Net: 100e6},
		Attributes: []machine.Attribute{{Name: "gen", Value: "g1"}, {Name: "host", Value: "m1"}, {Name: "rack", Value: "r1"}},
	}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestReadJobs(t *testing.T) {
	const file = "id,prio,prod,count,cpu_milli,mem_mib,gpu,net_mbps,gen,max_per_host,arrive_s,run_s\n" +
		"a,7,1,3,500,64,0.25,10,g1,2,60,120\n"
	got, notes, err := ReadJobs("f", strings.NewReader(file))
	if err != nil || len(notes) > 0 || len(got) != 1 {
		t.Fatal(err, notes, got)
	}
	c := got[0].Job.Config
	type row struct {
		Key         job.Key
		Instances   string
		Tier        string
		Priority    int32
		Need        unit.Resources
		Constraints []job.Constraint
		Line        int
		Arrive, Run int64
		KeptRunning bool
	}
	want := row{
		"trace/prod/a", "0-2", job.Preferred, 7,
		unit.Resources{CPU: 500, RAM: 64 * unit.MiB, GPU: 250, Net: 10e6},
		[]job.Constraint{{Attribute: "gen", Values: []string{"g1"}}, {Attribute: "host", Limit: 2}},
		2, 60, 120, false,
	}
	if d := cmp.Diff(want, row{
		got[0].Job.Key, got[0].Job.Instances.String(), c.Tier, c.Priority, c.Task.Resources, c.Constraints, got[0].Line,
		got[0].Arrive, got[0].Run, c.Service,
	}); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestReadPlacement reads a column that a file of jobs may have.
func TestReadPlacement(t *testing.T) {
	const head = "id,prio,prod,count,cpu_milli,mem_mib,gpu,net_mbps,gen,max_per_host,placement\n"
	for text, want := range map[string]string{"spread": job.Spread, "best-fit": "", "": "", "-": ""} {
		got, notes, err := ReadJobs("f", strings.NewReader(head+"a,0,0,1,1,1,0,0,-,0,"+text+"\n"))
		if err != nil || len(notes) > 0 || got[0].Job.Config.Placement != want {
			t.Errorf("%q gives %+v, %v, %v; want %q", text, got, notes, err, want)
		}
	}
	_, _, err := ReadJobs("f", strings.NewReader(head+"a,0,0,1,1,1,0,0,-,0,spraed\n"))
	if want := `f:2: placement is "spraed"; want best-fit or spread; did you mean spread?`; err == nil || err.Error() != want {
		t.Errorf("error %v; want %s", err, want)
	}
}

// TestReadMode reads columns that a file of machines may have.
func TestReadMode(t *testing.T) {
	const head = "id,cpu_milli,mem_mib,gpu,net_mbps,rack,zone,gen,mode,avoid\n"
	got, notes, err := ReadMachines("f", strings.NewReader(head+"a,1,1,0,1,r,z,g,Drained,0\nb,1,1,0,1,r,z,g,,1\n"))
	if err != nil || len(notes) > 0 || got[0].Mode != machine.Drained || got[0].Avoid != "" || got[1].Mode != machine.None || got[1].Avoid == "" {
		t.Errorf("%+v, %v, %v; want the first drained and the second avoided", got, notes, err)
	}
	for text, want := range map[string]string{
		"DRAINNED,0": `f:2: mode is "DRAINNED"; want NONE, SCHEDULED, DRAINING or DRAINED; did you mean DRAINED?`,
		"NONE,yes":   `f:2: avoid is "yes"; want a whole number from 0 to 1`,
	} {
		if _, _, err = ReadMachines("f", strings.NewReader(head+"a,1,1,0,1,r,z,g,"+text+"\n")); err == nil || err.Error() != want {
			t.Errorf("%s: error %v; want %s", text, err, want)
		}
	}
}

// FuzzRead holds both readers to an answer or an error that names the file.
func FuzzRead(f *testing.F) {
	f.Add("id,cpu_milli,mem_mib,gpu,net_mbps,rack,zone,gen\na,1,1,0,1,r,z,g\n")
	f.Add("id,prio,prod,count,cpu_milli,mem_mib,gpu,net_mbps,gen,max_per_host\na,0,0,9,1,1,0.5,0,-,0\n")
	f.Add("\x1f\x8b\x08\x00")
	f.Add("id,\"x\n")
	f.Fuzz(func(t *testing.T, text string) {
		_, _, err := ReadMachines("FILE", strings.NewReader(text))
		if err != nil && !strings.Contains(err.Error(), "FILE") {
			t.Errorf("machines: %v; want the file's name in it", err)
		}
		jobs, _, err := ReadJobs("FILE", strings.NewReader(text))
		if err != nil && !strings.Contains(err.Error(), "FILE") {
			t.Errorf("jobs: %v; want the file's name in it", err)
		}
		for _, j := range jobs {
			if n := j.Job.Instances.Len(); n < 1 || n > maxCount {
				t.Errorf("a job of %d tasks was taken", n)
			}
		}
	})
}
