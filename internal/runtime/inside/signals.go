package inside

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// disposition is the kernel's struct sigaction.
type disposition struct {
	handler, flags, restorer uintptr
	mask                     uint64
}

const (
	byDefault = 0 // SIG_DFL
	ignored   = 1 // SIG_IGN
	signals   = 64
)

// heed makes this process heed every signal that whoever started it ignores:
// what is ignored is inherited by a task, which could not know.
func heed() {
	for sig := uintptr(1); sig <= signals; sig++ {
		var was disposition
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, 0, uintptr(unsafe.Pointer(&was)), unsafe.Sizeof(was.mask), 0, 0) //nolint:gosec // the kernel fills it in
		if errno != 0 || was.handler != ignored {
			continue
		}
		now := disposition{handler: byDefault}
		_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&now)), 0, unsafe.Sizeof(now.mask), 0, 0) //nolint:gosec // the kernel reads it
	}
}
