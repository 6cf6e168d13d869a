package trust

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/fault"
)

var start = time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)

func authority(t testing.TB, dir string) *Authority {
	t.Helper()
	a, err := OpenAuthority(dir, "dev", start)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestAuthority holds that an authority is made once, and its key is its
// owner's.
func TestAuthority(t *testing.T) {
	dir := t.TempDir()
	a := authority(t, dir)
	modes := map[string]os.FileMode{}
	for _, f := range []string{AuthorityFile, AuthorityKeyFile} {
		info, err := os.Stat(filepath.Join(dir, f))
		if err != nil {
			t.Fatal(err)
		}
		modes[f] = info.Mode().Perm()
	}
	if diff := cmp.Diff(map[string]os.FileMode{AuthorityFile: 0o644, AuthorityKeyFile: 0o600}, modes); diff != "" {
		t.Errorf("modes (-want +got):\n%s", diff)
	}
	if got, want := a.cert.NotAfter, start.Add(AuthorityLife); !got.Equal(want) {
		t.Errorf("good until %v; want %v", got, want)
	}
	if again := authority(t, dir); Pin(again.cert) != Pin(a.cert) {
		t.Error("the second start made another authority")
	}
	// A crash before the last step: the certificate is still aside.
	pem := filepath.Join(dir, AuthorityFile)
	if err := os.Rename(pem, pem+".new"); err != nil {
		t.Fatal(err)
	}
	if again := authority(t, dir); Pin(again.cert) != Pin(a.cert) {
		t.Error("after an interrupted making there is another authority")
	}
	if _, err := os.Stat(pem); err != nil {
		t.Error(err)
	}
}

// TestAuthorityDamaged holds that nothing is made over what is left of an
// authority, and that the error says what to do.
func TestAuthorityDamaged(t *testing.T) {
	other := t.TempDir()
	authority(t, other)
	foreign, err := os.ReadFile(filepath.Join(other, AuthorityFile))
	if err != nil {
		t.Fatal(err)
	}
	for what, tt := range map[string]struct {
		damage func(pem, key string) error
		now    time.Time
		want   fault.Kind
		says   string
	}{
		"no certificate":     {func(pem, _ string) error { return os.Remove(pem) }, start, fault.Invalid, "restore"},
		"no key":             {func(_, key string) error { return os.Remove(key) }, start, fault.Invalid, "restore"},
		"garbage":            {func(pem, _ string) error { return os.WriteFile(pem, []byte("x"), 0o644) }, start, fault.Invalid, "no certificate in PEM form"},
		"torn certificate":   {func(pem, _ string) error { return os.Truncate(pem, 300) }, start, fault.Invalid, "damaged"},
		"garbage in the key": {func(_, key string) error { return os.WriteFile(key, []byte("x"), 0o600) }, start, fault.Invalid, "no key in PEM form"},
		"empty key":          {func(_, key string) error { return os.Truncate(key, 0) }, start, fault.Invalid, "no key"},
		"another's":          {func(pem, _ string) error { return os.WriteFile(pem, foreign, 0o644) }, start, fault.Invalid, "not the certificate of the key"},
		"readable key":       {func(_, key string) error { return os.Chmod(key, 0o640) }, start, fault.Denied, "chmod 600"},
		"ended":              {func(string, string) error { return nil }, start.Add(AuthorityLife + time.Hour), fault.Invalid, "ended on"},
	} {
		dir := t.TempDir()
		authority(t, dir)
		pem, key := filepath.Join(dir, AuthorityFile), filepath.Join(dir, AuthorityKeyFile)
		if err := tt.damage(pem, key); err != nil {
			t.Fatal(err)
		}
		before, _ := os.ReadFile(key)
		_, err := OpenAuthority(dir, "dev", tt.now)
		if fault.Of(err) != tt.want || err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v (%v); want %v with %q", what, err, fault.Of(err), tt.want, tt.says)
		}
		if after, _ := os.ReadFile(key); !bytes.Equal(before, after) {
			t.Errorf("%s: the key was changed", what)
		}
	}
}

func TestPinInToken(t *testing.T) {
	pin := Pin(authority(t, t.TempDir()).cert)
	if len(pin) != PinLen {
		t.Fatalf("pin %q has %d digits; want %d", pin, len(pin), PinLen)
	}
	for token, want := range map[string]string{
		WithPin("covey_join_secret", pin):                       pin,
		WithPin("covey_join_a_b-c", pin):                        pin,
		WithPin("covey_join_secret", ""):                        "",
		WithPin("covey_admin_secret", pin):                      "",
		"covey_join_" + strings.Repeat("A", PinLen) + "_secret": "",
		"covey_join_" + pin:                                     "",
		"covey_join_" + pin + "x_secret":                        "",
		"":                                                      "",
	} {
		if got := PinOf(token); got != want {
			t.Errorf("PinOf(%q) = %q; want %q", token, got, want)
		}
	}
}

// TestPresenterRenews holds that a running server shows a new certificate when
// two thirds of the old one's life are over, and not before.
func TestPresenterRenews(t *testing.T) {
	a, now := authority(t, t.TempDir()), start
	p, err := a.Present([]string{"localhost", "127.0.0.1"}, func() time.Time { return now }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	shown := func() *x509.Certificate {
		c, err := p.Config().GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		return c.Leaf
	}
	first := shown()
	if got, want := first.NotAfter, start.Add(ServerLife); !got.Equal(want) {
		t.Errorf("good until %v; want %v", got, want)
	}
	now = start.Add(ServerLife*2/3 - time.Second)
	if !shown().Equal(first) {
		t.Error("renewed before two thirds of its life")
	}
	now = now.Add(2 * time.Second)
	second := shown()
	if second.Equal(first) || !second.NotAfter.Equal(now.Add(ServerLife)) {
		t.Errorf("at two thirds of its life a certificate until %v is shown; want a new one until %v", second.NotAfter, now.Add(ServerLife))
	}
	if !shown().Equal(second) {
		t.Error("renewed again at once")
	}
	if _, err := second.Verify(x509.VerifyOptions{Roots: Pool(a.cert), DNSName: "127.0.0.1", CurrentTime: now}); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"localhost", "127.0.0.1"}, p.Hosts()); diff != "" {
		t.Errorf("hosts (-want +got):\n%s", diff)
	}
	now = start.Add(AuthorityLife - 24*time.Hour)
	if last := shown(); last.NotAfter.After(a.cert.NotAfter) {
		t.Errorf("good until %v, after its authority's end %v", last.NotAfter, a.cert.NotAfter)
	}
}

// TestPresentFiles holds that a given certificate is read again when it
// changes, and that a bad one is not shown.
func TestPresentFiles(t *testing.T) {
	a, company, now := authority(t, t.TempDir()), authority(t, t.TempDir()), start
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	put := func(stamp time.Time) *x509.Certificate {
		c, err := company.forServer([]string{"covey.example.com"}, now)
		if err != nil {
			t.Fatal(err)
		}
		k, err := encodeKey(c.PrivateKey.(*ecdsa.PrivateKey))
		if err != nil {
			t.Fatal(err)
		}
		for f, data := range map[string][]byte{cert: EncodePEM(c.Leaf, company.cert), key: k} {
			if err := os.WriteFile(f, data, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(f, stamp, stamp); err != nil {
				t.Fatal(err)
			}
		}
		return c.Leaf
	}
	first := put(now)
	p, err := a.PresentFiles(cert, key, func() time.Time { return now }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := p.Pin(), Pin(company.cert); got != want {
		t.Errorf("pin %s; want that of who signed it, %s", got, want)
	}
	now = now.Add(2 * lookEvery)
	second := put(now)
	if c, _ := p.current(); !c.Leaf.Equal(second) || c.Leaf.Equal(first) {
		t.Error("a changed certificate is not shown")
	}
	now = now.Add(2 * lookEvery)
	if err := os.WriteFile(cert, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(cert, now, now); err != nil {
		t.Fatal(err)
	}
	if c, _ := p.current(); !c.Leaf.Equal(second) {
		t.Error("a damaged certificate replaced a good one")
	}
	if _, err := a.PresentFiles(cert, key, func() time.Time { return now }, nil); fault.Of(err) != fault.Invalid {
		t.Errorf("a damaged certificate at the start: %v; want invalid", err)
	}
	now = start.Add(2 * ServerLife)
	put(start)
	now = now.Add(2 * ServerLife)
	if _, err := a.PresentFiles(cert, key, func() time.Time { return now }, nil); fault.Of(err) != fault.Invalid || !strings.Contains(err.Error(), "good from") {
		t.Errorf("a certificate that ended: %v; want invalid", err)
	}
}

// TestForMachine holds what a machine's certificate says, and that its request
// says nothing.
func TestForMachine(t *testing.T) {
	a := authority(t, t.TempDir())
	r, err := NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	want := Machine{Cluster: "UID1", ID: "m1", Credential: "abc"}
	der, err := a.ForMachine(r.CSR, want, start)
	if err != nil {
		t.Fatal(err)
	}
	c, err := r.Answered(der)
	if err != nil {
		t.Fatal(err)
	}
	got, err := MachineOf(c.Leaf)
	if err != nil || got != want {
		t.Errorf("the certificate names %+v, %v; want %+v", got, err, want)
	}
	if got, want := c.Leaf.URIs[0].String(), "covey://UID1/machine/m1"; got != want {
		t.Errorf("its URI is %s; want %s", got, want)
	}
	if got, want := RenewAt(c.Leaf), start.Add(MachineLife*2/3); !got.Equal(want) {
		t.Errorf("renewed at %v; want %v", got, want)
	}
	if _, err = c.Leaf.Verify(x509.VerifyOptions{Roots: Pool(a.cert), CurrentTime: start}); err == nil {
		t.Error("a machine's certificate is good for a server")
	}
	path := filepath.Join(t.TempDir(), "agent.pem")
	if err = WriteMachine(path, c); err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v; want 0600", info.Mode())
	}
	again, err := ReadMachine(path)
	if err != nil || !again.Leaf.Equal(c.Leaf) {
		t.Errorf("read back %v", err)
	}
	other, _ := NewRequest()
	if _, err = other.Answered(der); err == nil {
		t.Error("a certificate for another key was taken in")
	}
	server, err := a.forServer([]string{"localhost"}, start)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := MachineOf(server.Leaf); fault.Of(err) != fault.Unauthenticated {
		t.Errorf("a server's certificate names machine %+v, %v", m, err)
	}
}

func TestForMachineRefuses(t *testing.T) {
	a := authority(t, t.TempDir())
	csr := func(key any) []byte {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	small, _ := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	good, _ := NewRequest()
	forged := bytes.Clone(good.CSR)
	forged[len(forged)-1] ^= 1
	for what, bad := range map[string][]byte{
		"nothing": nil, "garbage": []byte("garbage"), "too long": make([]byte, maxCSR+1), "RSA": csr(rsaKey), "P-224": csr(small),
		"not signed by its key": forged, "torn": good.CSR[:len(good.CSR)/2],
	} {
		if _, err := a.ForMachine(bad, Machine{"u", "m1", "c"}, start); fault.Of(err) != fault.Invalid {
			t.Errorf("%s: %v; want invalid", what, err)
		}
	}
}

// FuzzForMachine sends bytes as a request.
func FuzzForMachine(f *testing.F) {
	a := authority(f, f.TempDir())
	good, err := NewRequest()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good.CSR)
	f.Add([]byte{0x30, 0x80})
	f.Fuzz(func(t *testing.T, csr []byte) {
		der, err := a.ForMachine(csr, Machine{"u", "m1", "c"}, start)
		if err != nil {
			if fault.Of(err) != fault.Invalid {
				t.Errorf("%v; want invalid", err)
			}
			return
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		if m, err := MachineOf(c); err != nil || m.ID != "m1" || c.IsCA || len(c.DNSNames)+len(c.IPAddresses) > 0 {
			t.Errorf("a certificate for %+v, %v", m, err)
		}
	})
}
