package inside

import (
	"errors"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
)

// sandboxMounts are what a sandbox gives a task: where it is seen, which
// directory of the sandbox it is, and with which attributes. Each is mounted
// over what was there before, so that the sandbox comes before its logs.
var sandboxMounts = []struct {
	at, dir string
	attr    uint64
}{
	{Sandbox, ".", unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV},
	{Sandbox + "/" + job.LogsDir, job.LogsDir, unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_RDONLY},
	{"/tmp", job.TmpDir, unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV},
}

// CloneSandbox returns mounts of another sandbox, to be sent to an init with
// the order "sandbox". The caller closes them. It needs Linux 5.12.
func CloneSandbox(root *os.Root) (mounts []int, err error) {
	for _, m := range sandboxMounts {
		fd, err := cloneDir(root, m.dir, m.attr)
		if err != nil {
			CloseAll(mounts)
			return nil, mountErr("sandbox", err)
		}
		mounts = append(mounts, fd)
	}
	return mounts, nil
}

func cloneDir(root *os.Root, dir string, attr uint64) (int, error) {
	d, err := root.Open(dir)
	if err != nil {
		return -1, err
	}
	defer d.Close() //nolint:errcheck // only a directory
	fd, err := unix.OpenTree(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(int(d.Fd())), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, err
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: attr}); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// resettle gives processes that start from now on another sandbox. Those that
// run keep what they have open, and where they are.
func (in *initProcess) resettle(o Order, mounts []int) error {
	if !in.plan.Isolated {
		in.mu.Lock()
		defer in.mu.Unlock()
		for i, e := range in.plan.Env {
			if name, ok := strings.CutSuffix(e, "="+in.plan.Sandbox); ok {
				in.plan.Env[i] = name + "=" + o.Name
			}
		}
		in.plan.Sandbox, in.plan.Scratch = o.Name, path.Join(path.Dir(o.Name), path.Base(in.plan.Scratch))
		return nil
	}
	if len(mounts) != len(sandboxMounts) {
		return fault.Internal.Errorf("another sandbox came with %d mounts; want %d", len(mounts), len(sandboxMounts))
	}
	for i, m := range sandboxMounts {
		err := unix.MoveMount(mounts[i], "", unix.AT_FDCWD, m.at, unix.MOVE_MOUNT_F_EMPTY_PATH)
		if errors.Is(err, unix.ENOENT) { // the directory that is there was removed: nothing can be mounted on it
			_ = unix.Unmount(m.at, unix.MNT_DETACH) // else the next call says so
			err = unix.MoveMount(mounts[i], "", unix.AT_FDCWD, m.at, unix.MOVE_MOUNT_F_EMPTY_PATH)
		}
		if err != nil {
			return mountErr("another "+m.at, err)
		}
	}
	return nil
}
