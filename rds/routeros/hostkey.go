package routeros

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// A pinnedKey is one acceptable host key.
type pinnedKey struct {
	algorithm   string // the key's type; empty where only the fingerprint is known
	fingerprint string // SHA256:…
}

// parseHostKey reads an authorized_keys line, or a fingerprint as ssh-keygen -l
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
	return pinnedKey{algorithm: key.Type(), fingerprint: ssh.FingerprintSHA256(key)}, nil
}

// pinnedKeys collects the keys that the configuration pins.
func pinnedKeys(c *Config) ([]pinnedKey, error) {
	lines := slices.Clone([]string(c.HostKey))
	if c.HostKeyFile != "" {
		data, err := os.ReadFile(c.HostKeyFile)
		if err != nil {
			return nil, fmt.Errorf("read the pinned host keys: %w", err)
		}
		for scanner := bufio.NewScanner(bytes.NewReader(data)); scanner.Scan(); {
			if line := strings.TrimSpace(scanner.Text()); line != "" && line[0] != '#' {
				lines = append(lines, line)
			}
		}
		if len(lines) == 0 {
			return nil, fmt.Errorf("%s pins no host key", c.HostKeyFile)
		}
	}
	pinned := make([]pinnedKey, 0, len(lines))
	for _, line := range lines {
		key, err := parseHostKey(line)
		if err != nil {
			return nil, err
		}
		pinned = append(pinned, key)
	}
	return pinned, nil
}

// hostKeyAlgorithms asks the array for a key of a pinned type only, so that one
// with several keys shows the one that is pinned. RSA may sign with SHA-1 as a
// last resort: the key itself is pinned, and old firmware knows nothing better.
func hostKeyAlgorithms(pinned []pinnedKey) []string {
	all := []string{
		ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521,
		ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSA,
	}
	wanted := map[string]bool{}
	for _, p := range pinned {
		if p.algorithm == "" {
			return all
		}
		wanted[p.algorithm] = true
		if p.algorithm == ssh.KeyAlgoRSA {
			wanted[ssh.KeyAlgoRSASHA512], wanted[ssh.KeyAlgoRSASHA256] = true, true
		}
	}
	if len(wanted) == 0 {
		return all
	}
	return slices.DeleteFunc(all, func(algorithm string) bool { return !wanted[algorithm] })
}

// checkHostKey accepts a pinned key, or any key where that was asked for.
func checkHostKey(pinned []pinnedKey, acceptAny bool) ssh.HostKeyCallback {
	return func(_ string, _ net.Addr, key ssh.PublicKey) error {
		shown := ssh.FingerprintSHA256(key)
		if acceptAny || slices.ContainsFunc(pinned, func(p pinnedKey) bool { return p.fingerprint == shown }) {
			return nil
		}
		return wrongHostKey(fmt.Errorf("it shows %s %s, which is not pinned", key.Type(), shown))
	}
}

func wrongHostKey(cause error) error {
	return &rds.Error{Kind: rds.ErrDenied, Op: "check the host key", Err: cause,
		Hint: "if the array was reinstalled, compare the fingerprint on its console and pin it as hostKey; else somebody is in between"}
}

// userKey reads the private key that logs in.
func userKey(c *Config) (ssh.Signer, error) {
	data := c.Key
	if len(data) == 0 {
		var err error
		if data, err = os.ReadFile(c.KeyFile); err != nil {
			return nil, fmt.Errorf("read the user's key: %w", err)
		}
	}
	signer, err := ssh.ParsePrivateKey(data)
	if err != nil {
		return nil, fmt.Errorf("read the user's key %s: %w", c.KeyFile, err)
	}
	switch kind := signer.PublicKey().Type(); kind {
	case ssh.KeyAlgoRSA, ssh.KeyAlgoED25519:
		return signer, nil
	default:
		return nil, fmt.Errorf("the user's key %s is %s; RouterOS accepts RSA and ed25519 keys only", c.KeyFile, kind)
	}
}
