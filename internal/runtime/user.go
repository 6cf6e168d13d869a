package runtime

import (
	"crypto/sha256"
	"encoding/binary"
	"os/user"
	"slices"
	"strconv"

	"github.com/covey-platform/covey/internal/runtime/inside"
)

// Users that are not accounts come from a range that systemd's list of ranges
// leaves free and that stays below 2^31.
const (
	madeBase  = 1_879_048_192
	madeCount = 268_000_000
	minUID    = 100 // below are the system's own
	minGID    = 1
)

// privileged names groups whose members are as good as root, or read what is
// not theirs.
var privileged = []string{
	"root", "sudo", "wheel", "admin", "adm", "disk", "shadow", "docker", "lxd", "libvirt", "kvm",
	"systemd-journal", "kmem", "staff", "podman", "incus-admin",
}

// loginFor returns the role's own account where the machine has one that is
// not privileged, otherwise a user id that belongs to this role alone (up to
// hash collisions: 1 in 268 million for a pair of roles).
func loginFor(role string) inside.Login {
	if l, ok := account(role); ok {
		return l
	}
	sum := sha256.Sum256([]byte("covey role " + role))
	id := madeBase + uint32(binary.BigEndian.Uint64(sum[:8])%madeCount)
	return inside.Login{Name: role, UID: id, GID: id, Made: true}
}

func account(role string) (inside.Login, bool) {
	u, err := user.Lookup(role)
	if err != nil {
		return inside.Login{}, false
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 31)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 31)
	if err1 != nil || err2 != nil || uid < minUID || gid < minGID {
		return inside.Login{}, false
	}
	ids, err := u.GroupIds()
	if err != nil {
		return inside.Login{}, false
	}
	l := inside.Login{Name: role, UID: uint32(uid), GID: uint32(gid)}
	for _, s := range ids {
		n, err := strconv.ParseUint(s, 10, 31)
		if err != nil || n == 0 {
			return inside.Login{}, false
		}
		if g, err := user.LookupGroupId(s); err == nil && slices.Contains(privileged, g.Name) {
			return inside.Login{}, false
		}
		l.Groups = append(l.Groups, uint32(n))
	}
	return l, true
}
