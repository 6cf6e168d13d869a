package inside

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
)

// hostTrees are the directories of the machine that a task sees, read-only.
var hostTrees = []string{"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "opt"}

// buildRoot makes the file system that the task will see and moves into it.
// The calling process must be alone in its mount namespace. What is not
// mounted here does not exist for the task.
func buildRoot(p *Plan) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return mountErr("/", err)
	}
	if err := unix.Mount("tmpfs", p.Root, "tmpfs", unix.MS_NOSUID, "mode=755,size=1m,nr_inodes=512"); err != nil {
		return mountErr(p.Root, err)
	}
	for _, step := range []func(*Plan) error{bindHost, mountRun, overlayAccounts, bindResolver, makeDev, mountProc, bindSandbox} {
		if err := step(p); err != nil {
			return err
		}
	}
	if err := unix.Chdir(p.Root); err != nil {
		return mountErr(p.Root, err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return mountErr("pivot to "+p.Root, err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return mountErr("old root", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return mountErr("/", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID, ""); err != nil {
		return mountErr("/ read-only", err)
	}
	return nil
}

func mountErr(what string, err error) error {
	return fault.Unavailable.Errorf("file system of the task: %s: %w", what, err)
}

func bindHost(p *Plan) error {
	for _, d := range hostTrees {
		src, dst := "/"+d, path.Join(p.Root, d)
		st, err := os.Lstat(src)
		switch {
		case err != nil:
			continue
		case st.Mode()&os.ModeSymlink != 0:
			to, err := os.Readlink(src)
			if err == nil {
				err = os.Symlink(to, dst)
			}
			if err != nil {
				return mountErr(src, err)
			}
		case st.IsDir():
			if err := bindDir(src, dst, unix.MS_REC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV); err != nil {
				return err
			}
		}
	}
	return hide(p)
}

// hide covers directories that lie within what was bound.
func hide(p *Plan) error {
	for _, h := range p.Hide {
		top, _, _ := strings.Cut(strings.TrimPrefix(h, "/"), "/")
		at := path.Join(p.Root, h)
		st, err := os.Lstat(path.Join(p.Root, top))
		if err != nil || !st.IsDir() {
			continue
		}
		if st, err := os.Lstat(at); err != nil || !st.IsDir() {
			continue
		}
		if err := unix.Mount("tmpfs", at, "tmpfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=555,size=4k"); err != nil {
			return mountErr("hide "+h, err)
		}
	}
	return nil
}

// bindDir binds a directory with attributes, with all mounts below it if
// recursive is MS_REC.
func bindDir(src, dst string, recursive uintptr, attr uint64) error {
	if err := os.MkdirAll(dst, 0o755); err != nil { //nolint:gosec // seen by the task
		return mountErr(dst, err)
	}
	return bind(src, dst, recursive, attr)
}

func bind(src, dst string, recursive uintptr, attr uint64) error {
	if err := unix.Mount(src, dst, "", unix.MS_BIND|recursive, ""); err != nil {
		return mountErr("bind "+src, err)
	}
	if attr == 0 {
		return nil
	}
	flags := uint(0)
	if recursive != 0 {
		flags = unix.AT_RECURSIVE
	}
	err := unix.MountSetattr(unix.AT_FDCWD, dst, flags, &unix.MountAttr{Attr_set: attr})
	if !errors.Is(err, unix.ENOSYS) {
		if err != nil {
			return mountErr("attributes of "+src, err)
		}
		return nil
	}
	if recursive != 0 { // before Linux 5.12 mounts below cannot be changed with it: leave them out
		if err := unix.Unmount(dst, unix.MNT_DETACH); err != nil {
			return mountErr("unbind "+src, err)
		}
		if err := unix.Mount(src, dst, "", unix.MS_BIND, ""); err != nil {
			return mountErr("bind "+src, err)
		}
	}
	var old uintptr
	for a, f := range map[uint64]uintptr{unix.MOUNT_ATTR_RDONLY: unix.MS_RDONLY, unix.MOUNT_ATTR_NOSUID: unix.MS_NOSUID, unix.MOUNT_ATTR_NODEV: unix.MS_NODEV} {
		if attr&a != 0 {
			old |= f
		}
	}
	if err := unix.Mount("", dst, "", unix.MS_REMOUNT|unix.MS_BIND|old, ""); err != nil {
		return mountErr("remount "+src, err)
	}
	return nil
}

// mountRun gives /run, where only init may write.
func mountRun(p *Plan) error {
	at := path.Join(p.Root, "run")
	if err := os.Mkdir(at, 0o755); err != nil { //nolint:gosec // seen by the task
		return mountErr(at, err)
	}
	if err := unix.Mount("tmpfs", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755,size=16m,nr_inodes=4096"); err != nil {
		return mountErr(at, err)
	}
	return nil
}

// overlayAccounts adds a user that is no account of the machine to what the
// task sees of /etc/passwd and /etc/group, so that it has a name.
func overlayAccounts(p *Plan) error {
	if p.Login == nil || !p.Login.Made {
		return nil
	}
	l := p.Login
	for file, line := range map[string]string{
		"passwd": fmt.Sprintf("%s:x:%d:%d::%s:%s\n", l.Name, l.UID, l.GID, Sandbox, p.Shell),
		"group":  fmt.Sprintf("%s:x:%d:\n", l.Name, l.GID),
	} {
		at := path.Join(p.Root, "etc", file)
		b, err := os.ReadFile(at) //nolint:gosec // the machine's own file
		if err != nil {
			continue // nothing to stand in for
		}
		if n := len(b); n > 0 && b[n-1] != '\n' {
			b = append(b, '\n')
		}
		made := path.Join(p.Root, "run", file)
		if err := os.WriteFile(made, append(b, line...), 0o644); err != nil { //nolint:gosec // readable as the original
			return mountErr(made, err)
		}
		if err := bind(made, at, 0, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV); err != nil {
			return err
		}
	}
	return nil
}

// bindResolver keeps name resolution working where /etc/resolv.conf points to
// a file that the task would not see, such as systemd-resolved's.
func bindResolver(p *Plan) error {
	const file = "/etc/resolv.conf"
	real, err := resolve(file)
	if err != nil || real == file || !strings.HasPrefix(real, "/run/") {
		return nil //nolint:nilerr // no such file, nothing to bind
	}
	at := path.Join(p.Root, real)
	if err := os.MkdirAll(path.Dir(at), 0o755); err != nil { //nolint:gosec // seen by the task
		return mountErr(at, err)
	}
	if err := os.WriteFile(at, nil, 0o644); err != nil { //nolint:gosec // covered by the original
		return mountErr(at, err)
	}
	return bind(real, at, 0, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
}

// resolve returns a file's own path, free of links.
func resolve(file string) (string, error) {
	fd, err := unix.Open(file, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	return os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
}

// bindSandbox gives the task its own directory, the only one that it may
// write, apart from memory. The logs in it are the supervisor's.
func bindSandbox(p *Plan) error {
	const attr = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	at := path.Join(p.Root, Sandbox)
	if err := bindDir(p.Sandbox, at, 0, attr); err != nil {
		return err
	}
	if err := bind(path.Join(p.Sandbox, job.LogsDir), path.Join(at, job.LogsDir), 0, attr|unix.MOUNT_ATTR_RDONLY); err != nil {
		return err
	}
	if err := bindDir(path.Join(p.Sandbox, job.TmpDir), path.Join(p.Root, "tmp"), 0, attr); err != nil {
		return err
	}
	if err := os.Mkdir(path.Join(p.Root, "var"), 0o755); err != nil { //nolint:gosec // seen by the task
		return mountErr("/var", err)
	}
	if err := os.Symlink("/tmp", path.Join(p.Root, "var/tmp")); err != nil {
		return mountErr("/var/tmp", err)
	}
	return nil
}
