package runtime

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/fault"
)

// What supervisor and init say to each other, over a socket pair of packets.
// Both are always the same binary (the supervisor starts its own executable),
// so this needs no version.

// An initPlan is what an init needs to know before it begins. It comes in a
// file of its own, since command lines may be larger than a packet.
type initPlan struct {
	Isolated   bool          `json:"isolated"` // in namespaces of its own
	Root       string        `json:"root"`     // an empty directory
	Sandbox    string        `json:"sandbox"`
	Scratch    string        `json:"scratch"` // for scripts, when not isolated
	Hide       []string      `json:"hide,omitzero"`
	Login      *login        `json:"login,omitzero"` // nil: stay who we are
	ShmBytes   int64         `json:"shm_bytes,omitzero"`
	Env        []string      `json:"env"`
	Shell      string        `json:"shell"` // path of bash or sh
	Processes  []initCommand `json:"processes"`
	ShellCheck string        `json:"shell_check,omitzero"`
}

type initCommand struct {
	Name    string `json:"name"`
	Cmdline string `json:"cmdline"`
}

// The sandbox as the task sees it when isolated.
const sandboxInside = "/sandbox"

// inside returns the sandbox's path as the task sees it.
func (p *initPlan) inside() string {
	if p.Isolated {
		return sandboxInside
	}
	return p.Sandbox
}

// An order is from the supervisor to init. A spawn carries two descriptors,
// for stdout and stderr.
type order struct {
	Op   string `json:"op"` // spawn, check, signal, signal-all
	Name string `json:"name,omitzero"`
	Run  int    `json:"run,omitzero"`
	Sig  int    `json:"sig,omitzero"`
}

// A note is from init to the supervisor. A started one carries a pidfd.
type note struct {
	Op     string `json:"op"` // ready, fault, started, failed, exited
	Name   string `json:"name,omitzero"`
	Run    int    `json:"run,omitzero"`
	Check  bool   `json:"check,omitzero"` // it is about a shell check
	Code   int    `json:"code,omitzero"`
	Signal int    `json:"signal,omitzero"`
	Why    string `json:"why,omitzero"`

	pidfd int // -1: none
}

const maxPacket = 16 << 10

// packets is one end of the socket pair.
type packets struct{ c *net.UnixConn }

// packetPair returns the two ends: ours, and the one to hand to a child.
func packetPair() (*packets, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fault.Unavailable.Errorf("socket pair: %w", err)
	}
	ours := os.NewFile(uintptr(fds[0]), "init")
	theirs := os.NewFile(uintptr(fds[1]), "supervisor")
	p, err := packetsOf(ours)
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return p, theirs, nil
}

// packetsOf takes over a socket.
func packetsOf(f *os.File) (*packets, error) {
	c, err := net.FileConn(f)
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err != nil {
		return nil, fault.Internal.Errorf("socket: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(fault.Internal.Errorf("socket: %T is no unix socket", c), c.Close())
	}
	return &packets{u}, nil
}

func (p *packets) send(v any, fds ...int) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fault.Internal.Errorf("encode: %w", err)
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	_, _, err = p.c.WriteMsgUnix(b, rights, nil)
	return err
}

// receive waits for a packet. The caller closes the descriptors. buf must hold
// maxPacket bytes.
func (p *packets) receive(v any, buf []byte) (fds []int, err error) {
	oob := make([]byte, unix.CmsgSpace(4*4))
	n, on, _, _, err := p.c.ReadMsgUnix(buf, oob)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, net.ErrClosed
	}
	scms, err := unix.ParseSocketControlMessage(oob[:on])
	if err != nil {
		return nil, err
	}
	for i := range scms {
		got, err := unix.ParseUnixRights(&scms[i])
		if err != nil {
			return fds, err
		}
		fds = append(fds, got...)
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	return fds, json.Unmarshal(buf[:n], v)
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// environment is what a task's processes start with: nothing of the agent's.
func environment(user, sandbox, shell, zone string) []string {
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
