package state

import (
	"cmp"
	"iter"
)

// A bearer says whose a credential is. They stand in the order of kinds,
// subjects and hashes, so that all credentials of one machine are found without
// looking at those of ten thousand others.
type bearer struct{ kind, subject, hash string }

func (b bearer) compare(o bearer) int {
	return cmp.Or(cmp.Compare(b.kind, o.kind), cmp.Compare(b.subject, o.subject), cmp.Compare(b.hash, o.hash))
}

func (c Credential) bearer() bearer { return bearer{c.Kind, c.Subject, c.Hash} }

// Credential returns a credential by the hash of its secret.
func (s *Snapshot) Credential(hash string) (Credential, bool) {
	return s.credentials.Get(Credential{Hash: hash})
}

// Credentials yields every credential, in order of hash.
func (s *Snapshot) Credentials() iter.Seq[Credential] {
	return func(yield func(Credential) bool) { s.credentials.Ascend(yield) }
}

// CredentialsOf yields the credentials of a kind that let one subject in, in
// order of hash.
func (s *Snapshot) CredentialsOf(kind, subject string) iter.Seq[Credential] {
	return func(yield func(Credential) bool) {
		s.bearers.AscendGreaterOrEqual(bearer{kind: kind, subject: subject}, func(b bearer) bool {
			if b.kind != kind || b.subject != subject {
				return false
			}
			c, _ := s.Credential(b.hash)
			return yield(c)
		})
	}
}

// Admission returns a revision since which no credential has changed: who was
// let in at it need not be looked up again.
func (s *Snapshot) Admission() Rev { return s.admission }

func (s *Snapshot) putCredential(c Credential) {
	if old, known := s.credentials.ReplaceOrInsert(c); known {
		s.bearers.Delete(old.bearer())
	}
	s.bearers.ReplaceOrInsert(c.bearer())
}

func (s *Snapshot) dropCredential(hash string) {
	if old, known := s.credentials.Delete(Credential{Hash: hash}); known {
		s.bearers.Delete(old.bearer())
	}
}
