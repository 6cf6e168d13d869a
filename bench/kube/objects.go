package main

import (
	"strconv"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/covey-platform/covey/bench/workload"
)

const (
	jobLabel = "job"
	genLabel = "gen"

	// Kubernetes counts what it does not know as extended resources.
	gpuResource = "nvidia.com/gpu"

	// Bandwidth takes the place of the disk, of which the sets say nothing. As
	// an extended resource, a user's only other way, it would cost Kubernetes a
	// fifth of its time: it parses the name again for every node.
	netResource = v1.ResourceEphemeralStorage

	schedulerName = "default-scheduler"
)

// node is a machine that is ready, without taints and with room for more pods
// than any of the sets puts on one.
func node(m workload.Machine) *v1.Node {
	room := v1.ResourceList{
		v1.ResourceCPU:    *resource.NewMilliQuantity(m.CPUMilli, resource.DecimalSI),
		v1.ResourceMemory: *resource.NewQuantity(m.MemMiB<<20, resource.BinarySI),
		v1.ResourcePods:   *resource.NewQuantity(10_000, resource.DecimalSI),
		netResource:       *resource.NewQuantity(m.NetMbps, resource.DecimalSI),
	}
	if m.GPU > 0 {
		room[gpuResource] = *resource.NewQuantity(m.GPU, resource.DecimalSI)
	}
	return &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: m.ID, UID: types.UID(m.ID), Labels: map[string]string{
			v1.LabelHostname: m.ID, v1.LabelTopologyZone: m.Zone, "rack": m.Rack, genLabel: m.Gen,
		}},
		Status: v1.NodeStatus{
			Capacity: room, Allocatable: room,
			Conditions: []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionTrue}},
		},
	}
}

// podName differs from the task's name: Kubernetes allows no slash in it.
func podName(j workload.Job, instance int) string {
	return j.ID + "-" + strconv.Itoa(instance)
}

// pod is one task. Nothing is ever pre-empted for it: Nomad does not either
// unless it is told to, and the sets fit without.
func pod(j workload.Job, instance int, limitBy string) *v1.Pod {
	id := podName(j, instance)
	priority, never := int32(j.Prio), v1.PreemptNever
	p := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "bench", Name: id, UID: types.UID(id), Labels: map[string]string{jobLabel: j.ID},
		},
		Spec: v1.PodSpec{
			SchedulerName:    schedulerName,
			Priority:         &priority,
			PreemptionPolicy: &never,
			Containers:       []v1.Container{{Name: "task", Image: "task", Resources: requests(j)}},
		},
	}
	if j.Gen != "" {
		p.Spec.NodeSelector = map[string]string{genLabel: j.Gen}
	}
	if j.MaxPerHost > 0 {
		limit(p, j, limitBy)
	}
	return p
}

func requests(j workload.Job) v1.ResourceRequirements {
	ask := v1.ResourceList{
		v1.ResourceCPU:    *resource.NewMilliQuantity(j.CPUMilli, resource.DecimalSI),
		v1.ResourceMemory: *resource.NewQuantity(j.MemMiB<<20, resource.BinarySI),
	}
	if j.NetMbps > 0 {
		ask[netResource] = *resource.NewQuantity(j.NetMbps, resource.DecimalSI)
	}
	if j.GPU > 0 {
		ask[gpuResource] = *resource.NewQuantity(j.GPU, resource.DecimalSI)
	}
	return v1.ResourceRequirements{Requests: ask, Limits: ask}
}

// limit keeps a job's tasks apart. Kubernetes has no limit of tasks on a
// machine: a spread over hosts with a skew of n is one of n as long as an
// eligible machine without a task remains, and anti-affinity is one of 1.
func limit(p *v1.Pod, j workload.Job, by string) {
	alike := &metav1.LabelSelector{MatchLabels: map[string]string{jobLabel: j.ID}}
	if by == "anti-affinity" && j.MaxPerHost == 1 {
		p.Spec.Affinity = &v1.Affinity{PodAntiAffinity: &v1.PodAntiAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: []v1.PodAffinityTerm{
				{LabelSelector: alike, TopologyKey: v1.LabelHostname},
			},
		}}
		return
	}
	p.Spec.TopologySpreadConstraints = []v1.TopologySpreadConstraint{{
		MaxSkew: int32(j.MaxPerHost), TopologyKey: v1.LabelHostname,
		WhenUnsatisfiable: v1.DoNotSchedule, LabelSelector: alike,
	}}
}
