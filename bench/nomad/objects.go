package main

import (
	"fmt"
	"strconv"

	"github.com/hashicorp/nomad/nomad/structs"

	"github.com/covey-platform/covey/bench/workload"
)

const (
	datacenter = "dc1"
	driver     = "exec"
	group      = "tasks"
	genMeta    = "gen"

	// diskMiB is more than a machine needs: the sets say nothing of disks.
	diskMiB = 1 << 30
)

// nodeID is shaped like the ids that Nomad makes, and the same in every run.
func nodeID(i int) string {
	return fmt.Sprintf("%08x-0000-4000-8000-%012x", i, i)
}

// node is a machine that is ready. Nomad counts MHz where the sets count
// milli-cores: one stands for the other.
func node(i int, m workload.Machine) (*structs.Node, error) {
	n := &structs.Node{
		ID: nodeID(i), SecretID: nodeID(i), Name: m.ID, Datacenter: datacenter, NodePool: structs.NodePoolDefault,
		Attributes: map[string]string{"kernel.name": "linux", "nomad.version": "1.6.1", "driver." + driver: "1"},
		Drivers:    map[string]*structs.DriverInfo{driver: {Detected: true, Healthy: true}},
		Meta:       map[string]string{genMeta: m.Gen, "rack": m.Rack, "zone": m.Zone},
		NodeResources: &structs.NodeResources{
			Cpu:    structs.NodeCpuResources{CpuShares: m.CPUMilli},
			Memory: structs.NodeMemoryResources{MemoryMB: m.MemMiB},
			Disk:   structs.NodeDiskResources{DiskMB: diskMiB},
			Networks: []*structs.NetworkResource{
				{Mode: "host", Device: "eth0", CIDR: "192.168.0.100/32", MBits: int(m.NetMbps)},
			},
		},
		Status: structs.NodeStatusReady, SchedulingEligibility: structs.NodeSchedulingEligible,
	}
	if m.GPU > 0 {
		gpus := &structs.NodeDeviceResource{Vendor: "nvidia", Type: "gpu", Name: "gpu"}
		for g := range m.GPU {
			gpus.Instances = append(gpus.Instances, &structs.NodeDevice{ID: nodeID(i) + "-" + strconv.FormatInt(g, 10), Healthy: true})
		}
		n.NodeResources.Devices = []*structs.NodeDeviceResource{gpus}
	}
	return n, n.ComputeClass()
}

// job is a job with one group of tasks. Its network is asked for in the task,
// as was usual before Nomad 0.12: only there bandwidth still counts.
func job(j workload.Job, kind string) *structs.Job {
	ask := &structs.Resources{CPU: int(j.CPUMilli), MemoryMB: int(j.MemMiB)}
	if j.NetMbps > 0 {
		ask.Networks = structs.Networks{{MBits: int(j.NetMbps)}}
	}
	if j.GPU > 0 {
		ask.Devices = structs.ResourceDevices{{Name: "nvidia/gpu", Count: uint64(j.GPU)}}
	}
	made := &structs.Job{
		Region: "global", Namespace: structs.DefaultNamespace, ID: j.ID, Name: j.ID,
		Type: kind, Priority: priority(j), Datacenters: []string{datacenter}, NodePool: structs.NodePoolDefault,
		Status: structs.JobStatusPending, Constraints: constraints(j),
		TaskGroups: []*structs.TaskGroup{{
			Name: group, Count: j.Count, EphemeralDisk: &structs.EphemeralDisk{SizeMB: 1},
			RestartPolicy:    structs.NewRestartPolicy(kind),
			ReschedulePolicy: structs.NewReschedulePolicy(kind),
			Tasks: []*structs.Task{{
				Name: "task", Driver: driver, Resources: ask, LogConfig: structs.DefaultLogConfig(),
			}},
		}},
	}
	made.Canonicalize()
	return made
}

// priority squeezes the sets' 0-9 and 200-209 into Nomad's 1-100, in order.
// Jobs come one at a time, so it decides nothing.
func priority(j workload.Job) int {
	if j.Prio >= 200 {
		return int(min(50+j.Prio-200, 100))
	}
	return int(min(1+j.Prio, 49))
}

func constraints(j workload.Job) []*structs.Constraint {
	var all []*structs.Constraint
	if j.Gen != "" {
		all = append(all, &structs.Constraint{LTarget: "${meta." + genMeta + "}", Operand: "=", RTarget: j.Gen})
	}
	switch {
	case j.MaxPerHost == 1:
		all = append(all, &structs.Constraint{Operand: structs.ConstraintDistinctHosts})
	case j.MaxPerHost > 1:
		all = append(all, &structs.Constraint{
			LTarget: "${node.unique.id}", Operand: structs.ConstraintDistinctProperty, RTarget: strconv.Itoa(j.MaxPerHost),
		})
	}
	return all
}
