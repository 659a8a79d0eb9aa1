package routeros

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"fmt"
	"os"

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

// NewKeyPEM generates a private key, of a host or a user, in OpenSSH's file format.
func NewKeyPEM(t HostKeyType) ([]byte, error) {
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

// WriteKey generates a user's private key and writes it to a file.
func WriteKey(file string) error {
	key, err := NewKeyPEM(Ed25519)
	if err != nil {
		return err
	}
	return os.WriteFile(file, key, 0o600)
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
