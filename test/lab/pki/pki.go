package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// lifetime outlasts any test or demo.
const lifetime = 7 * 24 * time.Hour

// CA signs certificates and keeps the files in its folder.
type CA struct {
	PEM  []byte // its certificate
	File string // the same, in a file

	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Pair is a certificate with its key, PEM, in memory and in files.
type Pair struct {
	Cert, Key         []byte
	CertFile, KeyFile string
}

// NewCA makes an authority with its files in dir.
func NewCA(dir, name string) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template, err := template(name)
	if err != nil {
		return nil, err
	}
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	ca := &CA{PEM: encode("CERTIFICATE", der), File: filepath.Join(dir, name+".crt"), dir: dir, cert: cert, key: key}
	return ca, os.WriteFile(ca.File, ca.PEM, 0o600)
}

// Issue signs a certificate for a user (a client's name and groups) that also
// serves on loopback, under the given further names.
func (ca *CA) Issue(user string, groups []string, names ...string) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, err
	}
	template, err := template(user)
	if err != nil {
		return Pair{}, err
	}
	template.Subject.Organization = groups
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	template.DNSNames = append([]string{"localhost"}, names...)
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	if err != nil {
		return Pair{}, err
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{Cert: encode("CERTIFICATE", der), Key: keyPEM}, nil
}

// IssueFiles is Issue with the result in files named after base.
func (ca *CA) IssueFiles(base, user string, groups []string, names ...string) (Pair, error) {
	pair, err := ca.Issue(user, groups, names...)
	if err != nil {
		return Pair{}, err
	}
	pair.CertFile = filepath.Join(ca.dir, base+".crt")
	pair.KeyFile = filepath.Join(ca.dir, base+".key")
	if err := os.WriteFile(pair.CertFile, pair.Cert, 0o600); err != nil {
		return Pair{}, err
	}
	return pair, os.WriteFile(pair.KeyFile, pair.Key, 0o600)
}

func template(name string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(lifetime),
	}, nil
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return encode("EC PRIVATE KEY", der), nil
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
