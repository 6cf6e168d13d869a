package inside

import (
	"encoding/json"
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/fault"
)

// MaxPacket bounds a packet, in bytes.
const MaxPacket = 16 << 10

// maxRights is how many descriptors come with a packet at most.
const maxRights = 4

// Packets is one end of a socket pair whose packets are values in JSON, with
// descriptors. It is made without package net; see the comment of this package.
type Packets struct {
	f  *os.File
	rc syscall.RawConn
}

// Pair returns two ends: ours, and the one to hand to a child.
func Pair() (*Packets, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fault.Unavailable.Errorf("socket pair: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "peer")
	ours, err := PacketsOf(fds[0])
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return ours, theirs, nil
}

// PacketsOf takes over a socket.
func PacketsOf(fd int) (*Packets, error) {
	if err := unix.SetNonblock(fd, true); err != nil { // before it becomes a file, which waits without a thread then
		return nil, fault.Internal.Errorf("socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), "packets")
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, errors.Join(fault.Internal.Errorf("socket: %w", err), f.Close())
	}
	return &Packets{f, rc}, nil
}

// Close closes this end; who waits on either wakes up.
func (p *Packets) Close() error { return p.f.Close() }

// SetDeadline bounds every send and receive.
func (p *Packets) SetDeadline(t time.Time) error { return p.f.SetDeadline(t) }

// Send sends a value with descriptors, which stay the caller's.
func (p *Packets) Send(v any, fds ...int) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fault.Internal.Errorf("encode: %w", err)
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	return joined(p.rc.Write(func(fd uintptr) bool {
		err = again(func() error { return unix.Sendmsg(int(fd), b, rights, nil, unix.MSG_NOSIGNAL) })
		return !errors.Is(err, unix.EAGAIN)
	}), &err)
}

// Receive waits for a packet. The caller closes the descriptors. buf must hold
// [MaxPacket] bytes. After the other end has gone it fails.
func (p *Packets) Receive(v any, buf []byte) (fds []int, err error) {
	oob := make([]byte, unix.CmsgSpace(maxRights*4))
	var n, on int
	if err = joined(p.rc.Read(func(fd uintptr) bool {
		err = again(func() (called error) {
			n, on, _, _, called = unix.Recvmsg(int(fd), buf, oob, unix.MSG_CMSG_CLOEXEC)
			return called
		})
		return !errors.Is(err, unix.EAGAIN)
	}), &err); err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, os.ErrClosed
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
	return fds, json.Unmarshal(buf[:n], v)
}

// joined returns the poller's error or else the call's.
func joined(polled error, called *error) error {
	if polled != nil {
		return polled
	}
	return *called
}

// again repeats a call that a signal has interrupted.
func again(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// CloseAll closes descriptors.
func CloseAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}
