package agentd

import (
	"encoding/json"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/unit"
)

// diskFile is DataDir/disk.json: what an agent that was not told found of its
// disk. What its own tasks have written since is not taken off again at each
// start: they hold that already.
const diskFile = "disk.json"

// A disk is a file system, in bytes.
type disk struct {
	Free  int64 `json:"free"`  // for tasks, and what they hold of it
	Total int64 `json:"total"` // its size
}

// since returns what there is for tasks where was was found before, and now
// what is free at this moment. The disk may have grown or shrunk, and who else
// used it may have gone.
func (now disk) since(was disk) disk {
	return disk{Free: min(max(was.Free+now.Total-was.Total, now.Free, 0), now.Total), Total: now.Total}
}

// findDisk measures the disk of the data directory.
func (c *Config) findDisk() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(c.DataDir, &st); err != nil {
		return 0, fault.Internal.Errorf("disk of this machine: %w; say it with --disk", err)
	}
	now := disk{Free: int64(st.Bavail) * st.Bsize, Total: int64(st.Blocks) * st.Bsize}
	path := filepath.Join(c.DataDir, diskFile)
	var was disk
	if data, err := os.ReadFile(path); err == nil && json.Unmarshal(data, &was) == nil && was.Total > 0 { //nolint:gosec // a path of our own making
		now = now.since(was)
	}
	if now.Free < unit.MiB {
		c.Log.Warn("the disk of the data directory is full: tasks that want disk find no room here; make room and start the agent again, or say what there is with --disk", "directory", c.DataDir)
	}
	if now == was {
		return now.Free, nil
	}
	data, err := json.Marshal(now)
	if err == nil {
		err = replaceFile(path, append(data, '\n'), false)
	}
	if err != nil {
		c.Log.Warn("what the disk has could not be written down; the next start measures it anew", "error", err)
	}
	return now.Free, nil
}
