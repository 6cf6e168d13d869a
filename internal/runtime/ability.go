package runtime

import (
	"os"
	"os/exec"
	"slices"
	"syscall"
)

// ability is what this machine lets us do.
type ability struct {
	mounts     mounts // zero: no cgroups
	reduced    bool   // no cgroups, no namespaces, no other users
	namespaces bool   // own process, mount, host name and ipc namespaces
	missing    []string
}

const isolation = syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC

// probeAbilities tries what can be tried.
func probeAbilities(reduced bool) ability {
	var a ability
	if os.Geteuid() != 0 || reduced {
		a.reduced = true
		a.missing = []string{
			"cpu, memory and pids limits: cgroups need root; memory is sampled and a task over its amount is ended",
			"own process, mount, ipc and host name namespaces: they need root; tasks see the machine's files and processes",
			"an own user per role: tasks run as the agent's user and can reach its files",
			"the end of every process with its task: when a supervisor is killed, processes in sessions of their own (setsid) live on",
		}
		return a
	}
	a.mounts = probeMounts(reduced)
	for _, c := range controllers {
		if !a.mounts.has(c) {
			a.missing = append(a.missing, c+" limits: no cgroup hierarchy gives the "+c+" controller to groups (in a container: no process may be in its root group)")
		}
	}
	probe := exec.Command("/bin/true") //nolint:noctx // ends by itself
	probe.SysProcAttr = &syscall.SysProcAttr{Cloneflags: isolation}
	if err := probe.Run(); err != nil {
		a.missing = append(a.missing, "namespaces: the kernel refuses them: "+err.Error())
	} else {
		a.namespaces = true
	}
	a.missing = slices.Clip(a.missing)
	return a
}

// probeMounts finds the cgroups; none when they are not to be used.
func probeMounts(reduced bool) mounts {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || reduced || os.Geteuid() != 0 {
		return mounts{}
	}
	m := findMounts(string(b))
	m.enable()
	if len(m.v1) == 0 && len(m.v2has) == 0 {
		return mounts{}
	}
	return m
}
