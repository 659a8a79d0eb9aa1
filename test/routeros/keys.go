package routeros

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"fmt"

	gossh "golang.org/x/crypto/ssh"
)

// NewHostKey generates a host key.
func NewHostKey(t HostKeyType) (gossh.Signer, error) {
	key, err := generateKey(t)
	if err != nil {
		return nil, err
	}
	return gossh.NewSignerFromKey(key)
}

// NewHostKeyPEM generates a host key in OpenSSH's file format.
func NewHostKeyPEM(t HostKeyType) ([]byte, error) {
	key, err := generateKey(t)
	if err != nil {
		return nil, err
	}
	block, err := gossh.MarshalPrivateKey(key, "")
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(block), nil
}

func generateKey(t HostKeyType) (crypto.PrivateKey, error) {
	switch t {
	case RSA:
		return rsa.GenerateKey(rand.Reader, 2048)
	case Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, fmt.Errorf("host key type %q: not rsa or ed25519", t)
}
