package runtime

import (
	"bufio"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/format"
)

// A frame is one line of JSON on a task's socket. The supervisor says hello
// with its version, then its status, and its status again at each change; the
// agent says where it has the task's directory, stop, and until when the lease
// of an exclusive task goes. Operations that are not known are ignored: a newer
// peer may use them.
type frame struct {
	format.Fields
	Op      string  `json:"op"` // hello, status, home, stop, lease
	Version int     `json:"version,omitzero"`
	Reason  string  `json:"reason,omitzero"`
	Status  *Status `json:"status,omitzero"`

	Dir   string        `json:"dir,omitzero"`
	Until time.Duration `json:"lease_until_boot_nanos,omitzero"`
}

const (
	opHello  = "hello"
	opStatus = "status"
	opHome   = "home"
	opStop   = "stop"
	opLease  = "lease"
)

// maxFrame bounds a line, in bytes.
const maxFrame = 4 << 20

func encodeFrame(f frame) ([]byte, error) {
	f.Fields = format.Added()
	b, err := json.Marshal(f)
	if err != nil {
		return nil, fault.Internal.Errorf("encode frame: %w", err)
	}
	return append(b, '\n'), nil
}

// frames returns a scanner of lines, and decodeFrame reads one.
func frames(c net.Conn) *bufio.Scanner {
	sc := bufio.NewScanner(c)
	sc.Buffer(make([]byte, 0, 4<<10), maxFrame)
	return sc
}

func decodeFrame(line []byte) (frame, error) {
	var f frame
	if err := json.Unmarshal(line, &f); err != nil {
		return frame{}, fault.Invalid.Errorf("frame on a task's socket: %w", err)
	}
	if f.Version > maxVersion {
		return frame{}, newer(f.Version)
	}
	if f.Status != nil {
		if err := f.Status.restore(); err != nil {
			return frame{}, err
		}
	}
	return f, nil
}

// socketPath returns a name of the task's socket that is short whatever the
// directory is called: an address holds 108 bytes at most. It is valid while
// the directory is open.
func socketPath(dir *os.File) string {
	return "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + socketFile
}

// listen makes the task's socket. The caller closes the file.
func listen(dir string) (*os.File, error) {
	d, err := os.Open(dir) //nolint:gosec // a path of our own making
	if err != nil {
		return nil, fault.Unavailable.Errorf("%w", err)
	}
	defer d.Close() //nolint:errcheck // only read
	_ = os.Remove(filepath.Join(dir, socketFile))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socketPath(d), Net: "unix"})
	if err != nil {
		return nil, fault.Unavailable.Errorf("socket of a task: %w", err)
	}
	l.SetUnlinkOnClose(false)
	f, err := l.File()
	return f, errors.Join(err, l.Close())
}

// dial connects to the supervisor of a task.
func dial(dir string) (net.Conn, error) {
	d, err := os.Open(dir) //nolint:gosec // a path of our own making
	if err != nil {
		return nil, fault.Unavailable.Errorf("%w", err)
	}
	defer d.Close()                                               //nolint:errcheck // only read
	c, err := net.DialTimeout("unix", socketPath(d), dialTimeout) //nolint:noctx // bounded by its timeout
	if err != nil {
		return nil, fault.Unavailable.Errorf("supervisor does not answer: %w", err)
	}
	return c, nil
}
