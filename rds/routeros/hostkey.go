package routeros

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

// A pinnedKey is one acceptable host key: the key itself, or its fingerprint.
type pinnedKey struct {
	key         ssh.PublicKey // nil where only the fingerprint is known
	fingerprint string        // SHA256:…
}

// parseHostKey reads an authorized_keys line or a fingerprint as ssh-keygen -l
// prints it.
func parseHostKey(line string) (pinnedKey, error) {
	line = strings.TrimSpace(line)
	if digest, ok := strings.CutPrefix(line, "SHA256:"); ok {
		raw, err := base64.RawStdEncoding.DecodeString(digest)
		if err != nil || len(raw) != 32 {
			return pinnedKey{}, fmt.Errorf("%q is not a SHA256 fingerprint", line)
		}
		return pinnedKey{fingerprint: line}, nil
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return pinnedKey{}, fmt.Errorf("%q is neither like \"ssh-ed25519 AAAA…\" nor like \"SHA256:…\"", line)
	}
	return pinnedKey{key: key, fingerprint: ssh.FingerprintSHA256(key)}, nil
}

// hostKeyAlgorithms offers the array only what its pinned keys can sign with, so
// that an array with several keys shows one that is pinned. RSA keys may sign
// with SHA-1 as a last resort: the key is pinned, and old firmware knows no other.
func hostKeyAlgorithms(pinned []pinnedKey) []string {
	rsa := []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSA}
	all := append([]string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521}, rsa...)
	var algorithms []string
	for _, p := range pinned {
		switch {
		case p.key == nil:
			return all
		case p.key.Type() == ssh.KeyAlgoRSA:
			algorithms = append(algorithms, rsa...)
		default:
			algorithms = append(algorithms, p.key.Type())
		}
	}
	if len(algorithms) == 0 {
		return all
	}
	slices.Sort(algorithms)
	// Stable and without repetition; ssh-ed25519 sorts last, rsa-sha2-* before
	// ssh-rsa, and any order is safe because every one of them is pinned.
	return slices.Compact(algorithms)
}
