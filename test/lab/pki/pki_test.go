package pki

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"testing"
)

func TestIssuedCertificates(t *testing.T) {
	ca, err := NewCA(t.TempDir(), "ca")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.IssueFiles("node", "system:node:a", []string{"system:nodes"}, "extra.name")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tls.LoadX509KeyPair(pair.CertFile, pair.KeyFile); err != nil {
		t.Error(err)
	}
	loaded, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	file, err := os.ReadFile(ca.File)
	if err != nil || !roots.AppendCertsFromPEM(file) {
		t.Fatalf("the CA's file: %v", err)
	}
	cert := loaded.Leaf
	for _, name := range []string{"127.0.0.1", "localhost", "extra.name"} {
		if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
			t.Errorf("as %s: %v", name, err)
		}
	}
	if cert.Subject.CommonName != "system:node:a" || cert.Subject.Organization[0] != "system:nodes" {
		t.Errorf("subject %s", cert.Subject)
	}
}
