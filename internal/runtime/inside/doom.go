package inside

import (
	"math"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/fault"
)

// An exclusive task must be dead when its lease ends, whoever stands still. So
// four things end it, one after the other: its supervisor, in order and with
// the reason; its init, which exits; a timer in the kernel, which kills the
// supervisor and with it by the death signal the init and its namespace; and
// without namespaces a timer that kills the init. No timer of the kernel minds
// that its process is stopped.
//
// InitAfter and KernelAfter are how long after the end of the lease they act.
const (
	InitAfter   = 250 * time.Millisecond
	KernelAfter = 500 * time.Millisecond
)

// BootTime is a clock that nobody sets, and that goes on while the machine is
// suspended: the time since it was started. All its processes see the same.
func BootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return math.MaxInt64 // a clock that cannot be read is past every lease
	}
	return time.Duration(ts.Nano())
}

// A Doom is a timer of the kernel that kills this process. It fires also when
// the process is stopped.
type Doom struct {
	id  int32
	set bool
}

// sigevent is the kernel's struct sigevent.
type sigevent struct {
	value          uintptr
	signal, notify int32
	_              [48]byte
}

const timerAbsolute = 1 // TIMER_ABSTIME

// NewDoom returns one that is not set yet.
func NewDoom() (Doom, error) {
	d := Doom{set: true}
	e := sigevent{signal: int32(unix.SIGKILL)}                                                                                           // notify 0: SIGEV_SIGNAL
	_, _, errno := unix.Syscall(unix.SYS_TIMER_CREATE, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&e)), uintptr(unsafe.Pointer(&d.id))) //nolint:gosec // the kernel reads e and fills id in
	if errno != 0 {
		return d, fault.Unavailable.Errorf("no kernel timer, without which no exclusive task is run: %w", errno)
	}
	return d, nil
}

// At sets the moment, of [BootTime]. One in the past is now.
func (d Doom) At(when time.Duration) error {
	spec := [2]unix.Timespec{{}, unix.NsecToTimespec(max(when, 1).Nanoseconds())}                                               // once
	_, _, errno := unix.Syscall6(unix.SYS_TIMER_SETTIME, uintptr(d.id), timerAbsolute, uintptr(unsafe.Pointer(&spec)), 0, 0, 0) //nolint:gosec // the kernel reads it
	if errno != 0 {
		return fault.Unavailable.Errorf("the kernel timer of an exclusive task: %w", errno)
	}
	return nil
}

// Off takes the timer back: nothing is left to be killed.
func (d Doom) Off() {
	if !d.set {
		return
	}
	var never [2]unix.Timespec
	_, _, _ = unix.Syscall6(unix.SYS_TIMER_SETTIME, uintptr(d.id), 0, uintptr(unsafe.Pointer(&never)), 0, 0, 0) //nolint:gosec // the kernel reads it
}
