package routeros

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

const testFingerprint = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

func load(t *testing.T, text string) ([]Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "arrays.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return LoadArrays(path)
}

func TestLoadArrays(t *testing.T) {
	got, err := load(t, `
arrays:
- {name: west, address: 192.0.2.1, user: csi, keyFile: /key, hostKey: "`+testFingerprint+`", basePath: /raid10/k8s/}
- name: east
  default: true
  address: "[2001:db8::1]:2222"
  user: csi
  keyFile: /key
  hostKey: ["`+testFingerprint+`"]
  basePath: tank
  nvmeAddresses: [192.0.2.2]
  nvmePort: 4421
  maxChannels: 2
  dialTimeout: 3s
  commandTimeout: 1m
  reserveBytes: 1073741824
`)
	if err != nil {
		t.Fatal(err)
	}
	want := []Config{
		{Name: "west", Address: "192.0.2.1:22", User: "csi", KeyFile: "/key", HostKey: HostKeys{testFingerprint}, BasePath: "raid10/k8s",
			NQNPrefix: rds.DefaultNQNPrefix, NVMePort: 4420, MaxChannels: 4, DialTimeout: Duration{10 * time.Second}, CommandTimeout: Duration{15 * time.Second}},
		{Name: "east", Default: true, Address: "[2001:db8::1]:2222", User: "csi", KeyFile: "/key", HostKey: HostKeys{testFingerprint}, BasePath: "tank",
			NQNPrefix: rds.DefaultNQNPrefix, NVMeAddresses: []string{"192.0.2.2"}, NVMePort: 4421, MaxChannels: 2, DialTimeout: Duration{3 * time.Second}, CommandTimeout: Duration{time.Minute}, ReserveBytes: 1 << 30},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestLoadArraysRefuses(t *testing.T) {
	good := `{name: west, address: a, user: u, keyFile: k, hostKey: "` + testFingerprint + `", basePath: p}`
	for name, tc := range map[string]struct{ text, part string }{
		"unknown field": {"arrays: [{nmae: west}]", "nmae"},
		"none":          {"arrays: []", "no arrays"},
		"twice":         {"arrays: [" + good + "," + good + "]", "west"},
		"two defaults": {"arrays: [" + strings.Replace(good, "{", "{default: true, ", 1) + "," +
			strings.NewReplacer("{", "{default: true, ", "west", "east").Replace(good) + "]", "default"},
		"no default":     {"arrays: [" + good + "," + strings.Replace(good, "west", "east", 1) + "]", "default: true"},
		"no host key":    {"arrays: [{name: west, address: a, user: u, keyFile: k, basePath: p}]", "pinned"},
		"contradiction":  {"arrays: [" + strings.Replace(good, "{", "{insecureAcceptAnyHostKey: true, ", 1) + "]", "contradicts"},
		"bad host key":   {"arrays: [" + strings.Replace(good, "SHA256:", "MD5:", 1) + "]", "MD5"},
		"number timeout": {"arrays: [" + strings.Replace(good, "{", "{dialTimeout: 3, ", 1) + "]", "15s"},
		"no YAML":        {"arrays: [", "arrays"},
	} {
		if _, err := load(t, tc.text); err == nil || !strings.Contains(err.Error(), tc.part) {
			t.Errorf("%s: error %v does not say %q", name, err, tc.part)
		}
	}
	if _, err := LoadArrays(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func TestValidate(t *testing.T) {
	good := Config{Name: "west", Address: "a:22", User: "u", KeyFile: "k", HostKeyFile: "h", BasePath: "raid10/k8s"}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"name":      func(c *Config) { c.Name = "We.st" },
		"address":   func(c *Config) { c.Address = "a:b" },
		"host":      func(c *Config) { c.Address = ":22" },
		"user":      func(c *Config) { c.User = "" },
		"key":       func(c *Config) { c.KeyFile = "" },
		"base":      func(c *Config) { c.BasePath = "raid10/../flash" },
		"quote":     func(c *Config) { c.BasePath = `raid10/"k` },
		"empty":     func(c *Config) { c.BasePath = "/" },
		"double":    func(c *Config) { c.BasePath = "a//b" },
		"nqn":       func(c *Config) { c.NQNPrefix = "nqn" },
		"nvme":      func(c *Config) { c.NVMeAddresses = []string{""} },
		"portals":   func(c *Config) { c.NVMeAddresses = slices.Repeat([]string{"192.0.2.1"}, rds.MaxPortals+1) },
		"port":      func(c *Config) { c.NVMePort = 1 << 16 },
		"channels":  func(c *Config) { c.MaxChannels = 21 },
		"timeout":   func(c *Config) { c.CommandTimeout.Duration = -1 },
		"reserve":   func(c *Config) { c.ReserveBytes = -1 },
		"both keys": func(c *Config) { c.HostKey = HostKeys{testFingerprint} },
	} {
		c := good
		if change(&c); !errors.Is(c.Validate(), rds.ErrInvalid) {
			t.Errorf("%s was accepted: %+v", name, c)
		}
	}
	empty := Config{}
	if err := empty.Validate(); err == nil || strings.Count(err.Error(), "\n") < 4 {
		t.Errorf("not everything that is missing is said: %v", err)
	}
}

func TestHostKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	c := Config{HostKeyFile: path}
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := pinnedKeys(&c); err == nil {
		t.Error("a file that is absent")
	}
	write("# nothing\n\n")
	if _, err := pinnedKeys(&c); err == nil {
		t.Error("a file without keys")
	}
	write("# the array\n" + testFingerprint + "\n")
	if keys, err := pinnedKeys(&c); err != nil || len(keys) != 1 || len(hostKeyAlgorithms(keys)) < 5 {
		t.Errorf("%v, %v", keys, err)
	}
	write("nonsense\n")
	if _, err := pinnedKeys(&c); err == nil {
		t.Error("a file with nonsense")
	}
}
