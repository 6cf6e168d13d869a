package inside

import (
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"
)

// devices are all that a task has: name and number.
var devices = []struct {
	name         string
	major, minor uint32
}{
	{"null", 1, 3},
	{"zero", 1, 5},
	{"full", 1, 7},
	{"random", 1, 8},
	{"urandom", 1, 9},
	{"tty", 5, 0},
}

var devLinks = [][2]string{
	{"/proc/self/fd", "fd"},
	{"/proc/self/fd/0", "stdin"},
	{"/proc/self/fd/1", "stdout"},
	{"/proc/self/fd/2", "stderr"},
	{"pts/ptmx", "ptmx"},
}

// makeDev makes /dev. Its directory becomes read-only with the root.
func makeDev(p *Plan) error {
	dev := path.Join(p.Root, "dev")
	for _, d := range []string{dev, path.Join(dev, "pts"), path.Join(dev, "shm")} {
		if err := os.Mkdir(d, 0o755); err != nil { //nolint:gosec // seen by the task
			return mountErr(d, err)
		}
	}
	for _, d := range devices {
		at := path.Join(dev, d.name)
		if err := unix.Mknod(at, unix.S_IFCHR|0o666, int(unix.Mkdev(d.major, d.minor))); err != nil {
			return mountErr(at, err)
		}
		if err := os.Chmod(at, 0o666); err != nil { //nolint:gosec // as on every machine
			return mountErr(at, err)
		}
	}
	for _, l := range devLinks {
		if err := os.Symlink(l[0], path.Join(dev, l[1])); err != nil {
			return mountErr(l[1], err)
		}
	}
	const flags = unix.MS_NOSUID | unix.MS_NOEXEC
	if err := unix.Mount("devpts", path.Join(dev, "pts"), "devpts", flags, "newinstance,ptmxmode=0666,mode=0620"); err != nil {
		return mountErr("/dev/pts", err)
	}
	size := p.ShmBytes
	if size <= 0 {
		size = 64 << 20
	}
	if err := unix.Mount("shm", path.Join(dev, "shm"), "tmpfs", flags|unix.MS_NODEV, "mode=1777,size="+strconv.FormatInt(size, 10)); err != nil {
		return mountErr("/dev/shm", err)
	}
	return nil
}

// What of /proc speaks of the machine rather than of the task.
var (
	procMasked   = []string{"kcore", "keys", "timer_list", "sched_debug", "latency_stats", "sysrq-trigger", "kallsyms"}
	procReadOnly = []string{"sys", "bus", "fs", "irq"}
)

// mountProc gives the task its own /proc: its own processes, no switches.
func mountProc(p *Plan) error {
	at := path.Join(p.Root, "proc")
	if err := os.Mkdir(at, 0o555); err != nil { //nolint:gosec // seen by the task
		return mountErr(at, err)
	}
	if err := unix.Mount("proc", at, "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return mountErr("/proc", err)
	}
	for _, f := range procMasked {
		file := path.Join(at, f)
		if _, err := os.Lstat(file); err != nil {
			continue
		}
		if err := unix.Mount(path.Join(p.Root, "dev/null"), file, "", unix.MS_BIND, ""); err != nil {
			return mountErr("mask "+file, err)
		}
	}
	for _, d := range procReadOnly {
		file := path.Join(at, d)
		if _, err := os.Lstat(file); err != nil {
			continue
		}
		if err := bind(file, file, 0, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV); err != nil {
			return err
		}
	}
	return nil
}
