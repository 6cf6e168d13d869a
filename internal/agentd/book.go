package agentd

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/name"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// book remembers, a file for each task, what the machine itself does not show:
// which config it runs, what it reserves, and whether its use was told.
type book struct {
	dir     string
	entries map[task.ID]entry
}

type entry struct {
	ID        string         `json:"id"`
	Config    string         `json:"config"`
	Resources unit.Resources `json:"resources"`
	Ports     []uint16       `json:"ports,omitzero"`
	GPUs      []uint16       `json:"gpus,omitzero"`
	Told      bool           `json:"told,omitzero"` // its last usage facts are in the journal
}

func openBook(dir string) (*book, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.Denied.Errorf("%s: %w", dir, err)
	}
	b := &book{dir: dir, entries: map[task.ID]entry{}}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fault.Denied.Errorf("%s: %w", dir, err)
	}
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(dir, f.Name())) //nolint:gosec // a path of our own making
		if err != nil {
			return nil, fault.Denied.Errorf("%w", err)
		}
		var e entry
		id, bad := task.ID{}, json.Unmarshal(data, &e)
		if bad == nil {
			id, bad = task.ParseID(e.ID)
		}
		if bad != nil {
			continue // torn by a crash: the task, if it lives, is told of without its config
		}
		b.entries[id] = e
	}
	return b, nil
}

func (b *book) path(id task.ID) string { return filepath.Join(b.dir, name.Escape(id.String())+".json") }

// note writes an order down before it is carried out.
func (b *book) note(s task.Sighting) error {
	return b.put(s.ID, entry{ID: s.ID.String(), Config: s.Config.String(), Resources: s.Resources, Ports: s.Ports, GPUs: s.GPUs})
}

func (b *book) put(id task.ID, e entry) error {
	data, err := json.Marshal(e)
	if err != nil {
		return fault.Internal.Errorf("%w", err)
	}
	if err := replaceFile(b.path(id), data, false); err != nil {
		return err
	}
	b.entries[id] = e
	return nil
}

// sighting is what the book knows of a task.
func (b *book) sighting(id task.ID) task.Sighting {
	e := b.entries[id]
	s := task.Sighting{ID: id, Resources: e.Resources, Ports: e.Ports, GPUs: e.GPUs}
	if h, err := job.ParseHash(e.Config); err == nil {
		s.Config = h
	}
	return s
}

func (b *book) told(id task.ID) bool { return b.entries[id].Told }

func (b *book) tell(id task.ID) {
	e := b.entries[id]
	e.ID, e.Told = id.String(), true
	_ = b.put(id, e) // told twice, its cut in the journal keeps it from counting twice
}

func (b *book) forget(id task.ID) {
	delete(b.entries, id)
	if err := os.Remove(b.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return // it is read again at the next start, and forgotten then
	}
}
