package harness

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
)

// Authority issues certificates for one test.
type Authority struct {
	File string // its own certificate, in PEM
	Pool *x509.CertPool

	t    testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Certificate is one that an [Authority] issued: two files in PEM.
type Certificate struct {
	Cert, Key string
	Serial    int64
}

// serials makes every certificate of the process another.
var serials atomic.Int64

// NewAuthority makes an authority that nobody else knows.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{t: t, dir: t.TempDir(), Pool: x509.NewCertPool()}
	template := a.template("authority")
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	var der []byte
	a.key, der = a.sign(template, template, nil)
	var err error
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.Pool.AddCert(a.cert)
	a.File = filepath.Join(a.dir, "ca.pem")
	writePEM(t, a.File, "CERTIFICATE", der)
	return a
}

// Issue makes a certificate for names, each a host name or an IP address, that a server or a client can show.
func (a *Authority) Issue(names ...string) Certificate {
	a.t.Helper()
	serial := serials.Add(1)
	base := filepath.Join(a.dir, strconv.FormatInt(serial, 10))
	c := Certificate{base + ".cert", base + ".key", serial}
	a.IssueTo(&c, names...)
	return c
}

// IssueTo is Issue into the files of c, as a renewal is.
func (a *Authority) IssueTo(c *Certificate, names ...string) {
	a.t.Helper()
	template := a.template(names[0])
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	key, der := a.sign(template, a.cert, a.key)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	writePEM(a.t, c.Key, "PRIVATE KEY", keyDER)
	writePEM(a.t, c.Cert, "CERTIFICATE", der)
	c.Serial = template.SerialNumber.Int64()
}

// Client is the configuration of a client that trusts the authority, and shows the certificates given.
func (a *Authority) Client(own ...Certificate) *tls.Config {
	a.t.Helper()
	conf := &tls.Config{RootCAs: a.Pool, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}
	for _, c := range own {
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			a.t.Fatal(err)
		}
		conf.Certificates = append(conf.Certificates, pair)
	}
	return conf
}

func (a *Authority) template(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serials.Add(1)), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
}

// sign makes a key and signs template with signer's, or with itself.
func (a *Authority) sign(template, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*ecdsa.PrivateKey, []byte) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	return key, der
}

func writePEM(t testing.TB, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// StartSecureRedis is [StartRedis] with a second address, TLSAddr, where Redis shows a certificate of a's for
// 127.0.0.1, and wants to see one unless args say otherwise ("--tls-auth-clients", "no").
func StartSecureRedis(t testing.TB, a *Authority, args ...string) *Redis {
	t.Helper()
	own := a.Issue("127.0.0.1")
	return startRedis(t, true, append([]string{
		"--tls-cert-file", own.Cert, "--tls-key-file", own.Key, "--tls-ca-cert-file", a.File}, args...))
}
