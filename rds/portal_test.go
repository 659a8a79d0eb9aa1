package rds

import (
	"strings"
	"testing"
)

func TestIsHost(t *testing.T) {
	for _, host := range []string{"10.0.0.1", "fd00::1", "rds", "rds-a.example.com", "1a", strings.Repeat("a", 253)} {
		if !IsHost(host) {
			t.Errorf("%q is a host", host)
		}
	}
	for _, other := range []string{"", " ", "10.0.0.1 10.0.0.2", "fe80::1%eth0", "a/b", "-a", "a-", "a;b", "a,b", "a\n", strings.Repeat("a", 254)} {
		if IsHost(other) {
			t.Errorf("%q is no host", other)
		}
	}
}
