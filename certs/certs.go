// Package certs reads certificates from files, and reads them again when the files changed, so that renewing a
// certificate needs no restart.
package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// checkEvery is how often at most the files are looked at.
const checkEvery = time.Second

// Config is a TLS configuration made from files. Its methods may be called by any goroutine.
type Config struct {
	build func() (*tls.Config, error)
	files []string
	log   zerolog.Logger
	now   func() time.Time
	good  atomic.Pointer[tls.Config]

	mu      sync.Mutex
	seen    []os.FileInfo // of files, when they were read last
	checked time.Time
	failure string // why they could not be used then
}

// Load calls build, which reads files; empty names among them stand for none. Later changes are logged to log.
func Load(log zerolog.Logger, build func() (*tls.Config, error), files ...string) (*Config, error) {
	c := &Config{build: build, log: log, now: time.Now}
	for _, f := range files {
		if f != "" {
			c.files = append(c.files, f)
		}
	}
	c.checked, c.seen = c.now(), c.look()
	conf, err := build()
	if err != nil {
		return nil, err
	}
	c.good.Store(conf)
	return c, nil
}

// Current is the configuration that the files describe, as of a second ago at most. While they describe none, half way
// through being replaced for one, it is the last that they did.
func (c *Config) Current() *tls.Config {
	if c.mu.TryLock() { // else somebody else is looking already
		c.refresh()
		c.mu.Unlock()
	}
	return c.good.Load()
}

// refresh reads the files again if they changed; mu is held.
func (c *Config) refresh() {
	now := c.now()
	if now.Sub(c.checked) < checkEvery {
		return
	}
	c.checked = now
	// Looked at before the files are read: what changes in between differs the next time.
	seen := c.look()
	if c.failure == "" && slices.EqualFunc(seen, c.seen, same) {
		return
	}
	c.seen = seen
	conf, err := c.build()
	if err != nil {
		if c.failure != err.Error() {
			c.failure = err.Error()
			c.log.Error().Err(err).Msg("certificates changed but cannot be used; the ones read before stay in use")
		}
		return
	}
	c.failure = ""
	c.good.Store(conf)
	c.log.Info().Strs("files", c.files).Msg("certificates changed and were read again")
}

// look returns what the system knows of the files; nil for one that is not there.
func (c *Config) look() []os.FileInfo {
	list := make([]os.FileInfo, len(c.files))
	for i, f := range c.files {
		if info, err := os.Stat(f); err == nil {
			list[i] = info
		}
	}
	return list
}

// same tells whether a file is neither written to nor replaced by another.
func same(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == b
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// Pair reads a certificate, with the chain up to its authority behind it, and its key, both in PEM.
func Pair(cert, key string) (tls.Certificate, error) {
	certPEM, err := os.ReadFile(cert)
	if err != nil {
		return tls.Certificate{}, err
	}
	keyPEM, err := os.ReadFile(key)
	if err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s and %s: %w", cert, key, err)
	}
	return pair, nil
}

// Pool reads the certificates of authorities, in PEM.
func Pool(path string) (*x509.CertPool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s: %w", path, errNoCertificate)
	}
	return pool, nil
}

var errNoCertificate = errors.New("there is no certificate in PEM in it")
