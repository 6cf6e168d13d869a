package control

import (
	"fmt"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/tenant"
)

// SetQuota gives a role a quota, or every role that has none of its own. As in
// Aurora, it is refused where it gives less than what is reserved already.
type SetQuota struct {
	Role  string // or [tenant.EveryRole]
	Quota tenant.Quota
	By    string
}

// RemoveQuota takes a role's own quota away: from then on it has that of every
// role, or none.
type RemoveQuota struct {
	Role string
	By   string
}

func (c SetQuota) do(t *Turn) (Answer, error) {
	if err := tenant.ValidOwner(c.Role); err != nil {
		return Answer{}, err
	}
	if err := c.Quota.Validate(); err != nil {
		return Answer{}, err
	}
	if err := covers(t.draft.Snapshot(), c.Role, c.Quota); err != nil {
		return Answer{}, err
	}
	old, _ := t.draft.Snapshot().Quota(c.Role)
	text := fmt.Sprintf("role %s may reserve %v in the tier preferred", c.Role, c.Quota)
	if c.Role == tenant.EveryRole {
		text = fmt.Sprintf("each role without a quota of its own may reserve %v in the tier preferred", c.Quota)
	}
	return Answer{Text: text}, t.apply(state.PutQuota{Role: c.Role, Quota: c.Quota, Base: old.Rev, By: c.By})
}

func (c RemoveQuota) do(t *Turn) (Answer, error) {
	s := t.draft.Snapshot()
	old, ok := s.Quota(c.Role)
	switch {
	case !ok && c.Role == tenant.EveryRole:
		return Answer{}, fault.NotFound.Errorf("there is no quota of every role; covey quota list shows those there are")
	case !ok:
		return Answer{}, fault.NotFound.Errorf("role %.80s has no quota of its own; covey quota list shows those there are", c.Role)
	}
	text := fmt.Sprintf("nothing bounds what role %s may reserve", c.Role)
	if c.Role == tenant.EveryRole {
		text = "nothing bounds the roles that have no quota of their own"
	} else if every, bounded := s.Quota(tenant.EveryRole); bounded {
		if err := every.Cover(c.Role, s.Consumed(c.Role)); err != nil {
			return Answer{}, fault.Of(err).Errorf("the quota of every role would hold: %w", err)
		}
		text = fmt.Sprintf("role %s may reserve %v, as every role may", c.Role, every.Quota)
	}
	return Answer{Text: text}, t.apply(state.DropQuota{Role: c.Role, Base: old.Rev, By: c.By})
}

// covers reports whose use a quota is too small for, if anybody's. Its cost
// follows the number of roles.
func covers(s *state.Snapshot, role string, q tenant.Quota) error {
	if role != tenant.EveryRole {
		return q.Cover(role, s.Consumed(role))
	}
	for r, sum := range s.Consumers("") {
		if _, own := s.Quota(r); own {
			continue
		}
		if err := q.Cover(r, sum); err != nil {
			return fault.Of(err).Errorf("%w, or give it a quota of its own", err)
		}
	}
	return nil
}
