package inside

import (
	goruntime "runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/fault"
)

// forbidden are system calls that no task needs without privileges and that
// have been ways out of containers: they answer EPERM.
var forbidden = []uint32{
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD,
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE,
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_SETNS, unix.SYS_UNSHARE,
	unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT, unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR,
	unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_OPEN_BY_HANDLE_AT,
	unix.SYS_REBOOT, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_ACCT, unix.SYS_QUOTACTL,
}

// absent are system calls that answer ENOSYS, so that libraries fall back:
// clone3's flags cannot be seen by a filter, and io_uring passes by filters.
var absent = []uint32{unix.SYS_CLONE3, unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER}

// namespaceFlags are the flags of clone that make namespaces.
const namespaceFlags = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET |
	unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP

// Offsets in the kernel's struct seccomp_data (little-endian machines).
const (
	offNr   = 0
	offArch = 4
	offArg0 = 16
)

// archOf maps Go's architectures to the kernel's audit numbers.
var archOf = map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}

// filterThread installs the filter on the calling thread. On architectures
// whose numbers it does not know it installs none.
func filterThread() error {
	arch, ok := archOf[goruntime.GOARCH]
	if !ok {
		return nil
	}
	prog := filter(arch)
	f := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&f)), 0, 0); err != nil { //nolint:gosec // the kernel copies it
		return fault.Unavailable.Errorf("system call filter: %w", err)
	}
	return nil
}

// filter returns the program: another architecture's calls kill, what is
// forbidden or absent says so, everything else is allowed.
func filter(arch uint32) []unix.SockFilter {
	const (
		load   = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		jeq    = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		jge    = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
		jset   = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
		ret    = unix.BPF_RET | unix.BPF_K
		x32bit = 0x40000000
		errno  = 0x00050000 // SECCOMP_RET_ERRNO
		allow  = 0x7fff0000 // SECCOMP_RET_ALLOW
		die    = 0x80000000 // SECCOMP_RET_KILL_PROCESS
	)
	p := []unix.SockFilter{
		{Code: load, K: offArch},
		{Code: jeq, K: arch, Jt: 1},
		{Code: ret, K: die},
		{Code: load, K: offNr},
		{Code: jge, K: x32bit, Jf: 1},
		{Code: ret, K: errno | uint32(unix.ENOSYS)},
	}
	for _, nr := range forbidden {
		p = append(p, unix.SockFilter{Code: jeq, K: nr, Jf: 1}, unix.SockFilter{Code: ret, K: errno | uint32(unix.EPERM)})
	}
	for _, nr := range absent {
		p = append(p, unix.SockFilter{Code: jeq, K: nr, Jf: 1}, unix.SockFilter{Code: ret, K: errno | uint32(unix.ENOSYS)})
	}
	return append(p,
		unix.SockFilter{Code: jeq, K: unix.SYS_CLONE, Jf: 3},
		unix.SockFilter{Code: load, K: offArg0},
		unix.SockFilter{Code: jset, K: namespaceFlags, Jf: 1},
		unix.SockFilter{Code: ret, K: errno | uint32(unix.EPERM)},
		unix.SockFilter{Code: ret, K: allow},
	)
}
