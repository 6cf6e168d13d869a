package inside

import (
	"slices"
	"strings"
	"time"
)

// What supervisor and init say to each other, over a socket pair of packets.
// Both are always the same binary (the supervisor starts its own executable),
// so this needs no version.

// A Plan is what an init needs to know before it begins. It comes in a
// file of its own, since command lines may be larger than a packet.
type Plan struct {
	Isolated   bool      `json:"isolated"` // in namespaces of its own
	Root       string    `json:"root"`     // an empty directory
	Sandbox    string    `json:"sandbox"`
	Scratch    string    `json:"scratch"` // for scripts, when not isolated
	Hide       []string  `json:"hide,omitzero"`
	Login      *Login    `json:"login,omitzero"` // nil: stay who we are
	ShmBytes   int64     `json:"shm_bytes,omitzero"`
	Env        []string  `json:"env"`
	Shell      string    `json:"shell"` // path of bash or sh
	Processes  []Command `json:"processes"`
	ShellCheck string    `json:"shell_check,omitzero"`

	Until time.Duration `json:"until,omitzero"` // an exclusive task's lease, of BootTime
}

// A Login is whom a task runs as.
type Login struct {
	Name   string   `json:"name"`
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups,omitzero"`
	Made   bool     `json:"made,omitzero"` // no account of the machine: derived from the role
}

// A Command is a process that init may be told to start.
type Command struct {
	Name    string `json:"name"`
	Cmdline string `json:"cmdline"`
}

// Sandbox is the sandbox as the task sees it when it is isolated.
const Sandbox = "/sandbox"

// Inside returns the sandbox's path as the task sees it.
func (p *Plan) Inside() string {
	if p.Isolated {
		return Sandbox
	}
	return p.Sandbox
}

// An Order is from the supervisor to init. A spawn carries two descriptors,
// for stdout and stderr, a sandbox the mounts of [CloneSandbox].
type Order struct {
	Op   string `json:"op"`            // spawn, check, signal, signal-all, lease, sandbox
	Name string `json:"name,omitzero"` // of a process; of a sandbox its path
	Run  int    `json:"run,omitzero"`
	Sig  int    `json:"sig,omitzero"`

	Until time.Duration `json:"until,omitzero"`
}

// A Note is from init to the supervisor. A started one carries a pidfd.
type Note struct {
	Op     string `json:"op"` // ready, fault, started, failed, exited, unsettled
	Name   string `json:"name,omitzero"`
	Run    int    `json:"run,omitzero"`
	Check  bool   `json:"check,omitzero"` // it is about a shell check
	Code   int    `json:"code,omitzero"`
	Signal int    `json:"signal,omitzero"`
	Why    string `json:"why,omitzero"`

	Pidfd int `json:"-"` // -1: none
}

// Environment is what a task's processes start with: nothing of the agent's.
func Environment(user, sandbox, shell, zone string) []string {
	env := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=" + sandbox, "PWD=" + sandbox, "USER=" + user, "LOGNAME=" + user, "SHELL=" + shell, "LANG=C.UTF-8",
	}
	if zone != "" {
		env = append(env, "TZ="+zone)
	}
	slices.Sort(env)
	return env
}

// maxInline bounds a command line that is passed as an argument; the kernel
// refuses one of 128 KiB.
const maxInline = 100 << 10

// profile is sourced before each process, as in Thermos.
const profile = "if [ -f ./.thermos_profile ]; then . ./.thermos_profile; fi\n"

// inline reports whether a command line needs no file.
func inline(cmdline string) bool {
	return len(cmdline) <= maxInline && !strings.HasPrefix(cmdline, "#!")
}
