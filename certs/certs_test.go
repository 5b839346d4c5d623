package certs

import (
	"bytes"
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"keyrow/test/harness"
)

// rig is a configuration of a certificate whose files a test changes, and a clock that it moves.
type rig struct {
	*Config
	t     testing.TB
	files harness.Certificate
	log   bytes.Buffer
	clock time.Time
}

func newRig(t testing.TB, a *harness.Authority) *rig {
	t.Helper()
	r := &rig{t: t, files: a.Issue("127.0.0.1"), clock: time.Now()}
	var err error
	r.Config, err = Load(zerolog.New(&r.log), func() (*tls.Config, error) {
		pair, err := Pair(r.files.Cert, r.files.Key)
		return &tls.Config{Certificates: []tls.Certificate{pair}}, err
	}, r.files.Cert, r.files.Key, "")
	if err != nil {
		t.Fatal(err)
	}
	r.now = func() time.Time { return r.clock }
	return r
}

// serial is the number of the certificate that is in use after the files were looked at again.
func (r *rig) serial() int64 {
	r.t.Helper()
	r.clock = r.clock.Add(checkEvery)
	return r.Current().Certificates[0].Leaf.SerialNumber.Int64()
}

func (r *rig) lines() int { return strings.Count(r.log.String(), "\n") }

func TestChangedFilesAreReadAgain(t *testing.T) {
	a := harness.NewAuthority(t)
	r := newRig(t, a)
	first := r.serial()
	if got := r.serial(); got != first || r.lines() != 0 {
		t.Fatalf("%d after %d although nothing changed, log:\n%s", got, first, &r.log)
	}
	a.IssueTo(&r.files, "127.0.0.1")
	if got := r.Current().Certificates[0].Leaf.SerialNumber.Int64(); got != first {
		t.Errorf("the files were looked at again within %v", checkEvery)
	}
	if got := r.serial(); got != r.files.Serial {
		t.Errorf("serial %d, want %d", got, r.files.Serial)
	}
	// In the way of editors and of mounted secrets: another file takes the place.
	other := a.Issue("127.0.0.1")
	for from, to := range map[string]string{other.Cert: r.files.Cert, other.Key: r.files.Key} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.serial(); got == r.files.Serial {
		t.Errorf("serial %d is still the old one", got)
	}
	if r.lines() != 2 {
		t.Errorf("log:\n%s", &r.log)
	}
}

// A renewal that is only half there keeps the old certificate, is logged once, and is taken when the rest came.
func TestUnusableFilesKeepTheOldOnes(t *testing.T) {
	a := harness.NewAuthority(t)
	r := newRig(t, a)
	old := r.serial()
	renewed := a.Issue("127.0.0.1")
	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	move(renewed.Cert, r.files.Cert)
	for range 3 {
		if got := r.serial(); got != old {
			t.Fatalf("serial %d, want the old %d", got, old)
		}
	}
	if r.lines() != 1 || !strings.Contains(r.log.String(), "private key does not match public key") {
		t.Errorf("log:\n%s", &r.log)
	}
	move(renewed.Key, r.files.Key)
	if got := r.serial(); got == old {
		t.Errorf("serial %d is still the old one", got)
	}
	move(r.files.Cert, r.files.Cert+".away")
	current := r.serial()
	move(r.files.Cert+".away", r.files.Cert)
	if got := r.serial(); got != current || r.lines() != 4 {
		t.Errorf("serial %d, want %d; log:\n%s", got, current, &r.log)
	}
}

func TestUnusableFilesAtFirst(t *testing.T) {
	a, dir := harness.NewAuthority(t), t.TempDir()
	mine, other := a.Issue("a"), a.Issue("b")
	for _, tt := range []struct {
		cert, key, want string
	}{
		{filepath.Join(dir, "none"), mine.Key, "no such file"},
		{mine.Cert, filepath.Join(dir, "none"), "no such file"},
		{mine.Cert, other.Key, "private key does not match public key"},
		{mine.Key, mine.Key, "failed to find"},
	} {
		_, err := Load(zerolog.Nop(), func() (*tls.Config, error) {
			_, err := Pair(tt.cert, tt.key)
			return nil, err
		}, tt.cert, tt.key)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "/") {
			t.Errorf("%s, %s: %v, want what is wrong with which file: %s", tt.cert, tt.key, err, tt.want)
		}
	}
	if _, err := Pool(mine.Key); err == nil || !strings.Contains(err.Error(), mine.Key) {
		t.Errorf("a key for an authority: %v", err)
	}
	if _, err := Pool(filepath.Join(dir, "none")); err == nil {
		t.Error("no error for an authority that is not there")
	}
}
