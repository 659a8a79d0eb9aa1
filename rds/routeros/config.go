package routeros

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

const (
	defaultSSHPort        = "22"
	defaultNVMePort       = 4420
	defaultMaxChannels    = 4
	defaultDialTimeout    = 10 * time.Second
	defaultCommandTimeout = 15 * time.Second
	// maxBasePath keeps the longest command within maxScript.
	maxBasePath = 96
)

var (
	namePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)
	// basePattern keeps out of every path what RouterOS or a regular expression
	// would interpret, and "..".
	basePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*$`)
	nqnPattern  = regexp.MustCompile(`^nqn\.\d{4}-\d{2}\.[A-Za-z0-9.-]+(:[A-Za-z0-9.:-]+)?$`)
)

// Config says how to reach one array and where on it the volumes live.
type Config struct {
	Name    string `json:"name"`              // what volume handles call it
	Default bool   `json:"default,omitempty"` // handles without a name mean this one
	Address string `json:"address"`           // host, or host:port of its SSH service
	User    string `json:"user"`
	KeyFile string `json:"keyFile"` // the user's private key, RSA or ed25519
	// Key is that key itself, for who did not read it from a file; it is never written.
	Key []byte `json:"-"`
	// HostKey pins the array's host key: authorized_keys lines or SHA256:…
	// fingerprints, one or several. HostKeyFile holds such lines instead.
	HostKey                  HostKeys `json:"hostKey,omitempty"`
	HostKeyFile              string   `json:"hostKeyFile,omitempty"`
	InsecureAcceptAnyHostKey bool     `json:"insecureAcceptAnyHostKey,omitempty"`
	// BasePath is the directory of the images, for example raid10/k8s; its first
	// component is the pool's mount point.
	BasePath      string   `json:"basePath"`
	NQNPrefix     string   `json:"nqnPrefix,omitempty"`
	NVMeAddresses []string `json:"nvmeAddresses,omitempty"` // what nodes connect to
	NVMePort      int      `json:"nvmePort,omitempty"`
	// MaxChannels bounds the commands that run at once on the one connection.
	MaxChannels    int      `json:"maxChannels,omitempty"`
	DialTimeout    Duration `json:"dialTimeout,omitzero"`
	CommandTimeout Duration `json:"commandTimeout,omitzero"`
	ReserveBytes   int64    `json:"reserveBytes,omitempty"` // kept free on the pool
}

// HostKeys is one pinned key or a list of them.
type HostKeys []string

// UnmarshalJSON accepts a string or a list of strings.
func (k *HostKeys) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*k = HostKeys{one}
		return nil
	}
	var list []string
	if err := json.Unmarshal(data, &list); err != nil {
		return errors.New("hostKey is neither a string nor a list of strings")
	}
	*k = list
	return nil
}

// Duration is a time.Duration spelt "15s" in a file.
type Duration struct{ time.Duration }

// UnmarshalJSON reads what time.ParseDuration reads.
func (d *Duration) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return fmt.Errorf("a duration is a string like \"15s\", not %s", data)
	}
	var err error
	d.Duration, err = time.ParseDuration(text)
	return err
}

// MarshalJSON writes what UnmarshalJSON reads.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// LoadArrays reads a YAML file with a list `arrays`. Unknown fields are errors.
// Exactly one of the arrays returned is the default: the one that says so, or
// the only one.
func LoadArrays(path string) ([]Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the array configuration: %w", err)
	}
	var file struct {
		Arrays []Config `json:"arrays"`
	}
	if err := yaml.UnmarshalStrict(data, &file); err != nil {
		return nil, fmt.Errorf("read the array configuration %s: %w", path, err)
	}
	if len(file.Arrays) == 0 {
		return nil, fmt.Errorf("the array configuration %s lists no arrays", path)
	}
	seen, standard := map[string]bool{}, -1
	for i := range file.Arrays {
		c := &file.Arrays[i]
		if err := c.Validate(); err != nil {
			return nil, fmt.Errorf("array configuration %s, entry %d: %w", path, i+1, err)
		}
		if seen[c.Name] {
			return nil, fmt.Errorf("array configuration %s: two arrays are named %s", path, c.Name)
		}
		seen[c.Name] = true
		if c.Default {
			if standard >= 0 {
				return nil, fmt.Errorf("array configuration %s: both %s and %s are the default", path, file.Arrays[standard].Name, c.Name)
			}
			standard = i
		}
	}
	if standard < 0 && len(file.Arrays) > 1 {
		// Chosen by its place, it would change with the order, and with it what
		// handles mean that name none.
		return nil, fmt.Errorf("array configuration %s: none of %d arrays says default: true; it is the one of the volumes whose handle names no array", path, len(file.Arrays))
	}
	file.Arrays[max(standard, 0)].Default = true
	return file.Arrays, nil
}

// MarshalArrays writes what LoadArrays reads.
func MarshalArrays(arrays []Config) ([]byte, error) {
	return yaml.Marshal(map[string]any{"arrays": arrays})
}

// Validate fills in defaults and reports, all at once, what is missing or
// malformed. It reads no file.
func (c *Config) Validate() error {
	c.fillIn()
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(namePattern.MatchString(c.Name), "name %q: lower-case letters, digits and dashes, at most 32", c.Name)
	host, port, err := net.SplitHostPort(c.Address)
	number, perr := strconv.ParseUint(port, 10, 16)
	check(err == nil && perr == nil && host != "" && number > 0, "address %q: a host, or host:port", c.Address)
	check(c.User != "", "user is missing")
	check(c.KeyFile != "" || len(c.Key) > 0, "keyFile is missing")
	pinned := len(c.HostKey) > 0 || c.HostKeyFile != ""
	check(pinned || c.InsecureAcceptAnyHostKey, "hostKey or hostKeyFile is missing: the array's key must be pinned (insecureAcceptAnyHostKey: true would accept any)")
	check(!pinned || !c.InsecureAcceptAnyHostKey, "insecureAcceptAnyHostKey contradicts a pinned host key")
	check(len(c.HostKey) == 0 || c.HostKeyFile == "", "both hostKey and hostKeyFile are given")
	for _, line := range c.HostKey {
		_, err := parseHostKey(line)
		check(err == nil, "hostKey: %v", err)
	}
	check(basePattern.MatchString(c.BasePath) && len(c.BasePath) <= maxBasePath, "basePath %q: a directory like raid10/k8s of letters, digits, dot, dash and underscore, at most %d", c.BasePath, maxBasePath)
	check(nqnPattern.MatchString(c.NQNPrefix) && len(c.NQNPrefix) <= 128, "nqnPrefix %q: like nqn.2000-02.com.mikrotik, at most 128", c.NQNPrefix)
	check(len(c.NVMeAddresses) <= rds.MaxPortals, "nvmeAddresses: %d of them, at most %d", len(c.NVMeAddresses), rds.MaxPortals)
	for _, address := range c.NVMeAddresses {
		check(rds.IsHost(address), "nvmeAddresses: %q is neither an address nor a host name", address)
	}
	check(c.NVMePort > 0 && c.NVMePort < 1<<16, "nvmePort %d", c.NVMePort)
	check(c.MaxChannels > 0 && c.MaxChannels <= 20, "maxChannels %d: 1 to 20, the array's own limit of sessions", c.MaxChannels)
	check(c.DialTimeout.Duration > 0, "dialTimeout %s", c.DialTimeout)
	check(c.CommandTimeout.Duration > 0, "commandTimeout %s", c.CommandTimeout)
	check(c.ReserveBytes >= 0, "reserveBytes %d", c.ReserveBytes)
	if err := errors.Join(errs...); err != nil {
		return &rds.Error{Kind: rds.ErrInvalid, Op: "configure", Array: c.Name, Err: err}
	}
	return nil
}

func (c *Config) fillIn() {
	c.BasePath = strings.Trim(c.BasePath, "/")
	if c.Address != "" {
		if _, _, err := net.SplitHostPort(c.Address); err != nil {
			c.Address = net.JoinHostPort(strings.Trim(c.Address, "[]"), defaultSSHPort)
		}
	}
	setDefault(&c.NQNPrefix, rds.DefaultNQNPrefix)
	setDefault(&c.NVMePort, defaultNVMePort)
	setDefault(&c.MaxChannels, defaultMaxChannels)
	setDefault(&c.DialTimeout.Duration, defaultDialTimeout)
	setDefault(&c.CommandTimeout.Duration, defaultCommandTimeout)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// mountPoint is the pool's, without a leading slash.
func (c *Config) mountPoint() string {
	point, _, _ := strings.Cut(c.BasePath, "/")
	return point
}
