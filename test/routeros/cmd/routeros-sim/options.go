package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
)

type options struct {
	listen, control    string
	hostKeyFile        string
	hostKeyType        string
	authorizedKeyFiles list
	users              list
	pools, dirs        list
	latency            time.Duration
	version            string
	seed               uint64
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(v string) error { *l = append(*l, v); return nil }

func newOptions(f *flag.FlagSet) *options {
	o := &options{}
	f.StringVar(&o.listen, "listen", "127.0.0.1:0", "address of the SSH server")
	f.StringVar(&o.control, "control", "127.0.0.1:0", "address of the HTTP control endpoint; empty for none")
	f.StringVar(&o.hostKeyFile, "host-key-file", "", "private host key; made if missing, thrown away when empty")
	f.StringVar(&o.hostKeyType, "host-key-type", "rsa", "rsa or ed25519, for a key that is made")
	f.Var(&o.authorizedKeyFiles, "authorized-key-file", "public keys that may log in; may be repeated; none accepts any key")
	f.Var(&o.users, "user", "name or name=policy,policy (ssh, read, write, test); may be repeated; default admin")
	f.Var(&o.pools, "pool", "name=size[:fs], fs xfs or btrfs; may be repeated")
	f.Var(&o.dirs, "dir", "directory to make on a pool, such as pool/volumes; may be repeated")
	f.DurationVar(&o.latency, "latency", 0, "latency of each command")
	f.StringVar(&o.version, "routeros-version", "", "version as /system/resource gives it")
	f.Uint64Var(&o.seed, "seed", 0, "seed of random faults")
	return o
}

// server makes the array the flags describe.
func (o *options) server() (*routeros.Server, error) {
	key, err := o.hostKey()
	if err != nil {
		return nil, err
	}
	users, err := o.parseUsers()
	if err != nil {
		return nil, err
	}
	srv, err := routeros.New(routeros.Options{
		Settings: routeros.Settings{Latency: o.latency, Version: o.version},
		HostKey:  key, HostKeyType: routeros.HostKeyType(o.hostKeyType), Users: users, Seed: o.seed,
	})
	if err != nil {
		return nil, err
	}
	for _, p := range o.pools {
		pool, err := parsePool(p)
		if err == nil {
			err = srv.AddPool(pool)
		}
		if err != nil {
			return nil, errors.Join(err, srv.Close())
		}
	}
	for _, d := range o.dirs {
		if err := srv.AddDirectory(d); err != nil {
			return nil, errors.Join(err, srv.Close())
		}
	}
	return srv, nil
}

// hostKey reads the key file and makes it if it is missing.
func (o *options) hostKey() (gossh.Signer, error) {
	if o.hostKeyFile == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(o.hostKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		if raw, err = routeros.NewKeyPEM(routeros.HostKeyType(o.hostKeyType)); err == nil {
			err = os.WriteFile(o.hostKeyFile, raw, 0o600)
		}
	}
	if err != nil {
		return nil, err
	}
	return gossh.ParsePrivateKey(raw)
}

func (o *options) parseUsers() ([]routeros.User, error) {
	var keys []gossh.PublicKey
	for _, name := range o.authorizedKeyFiles {
		raw, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		for rest := raw; len(strings.TrimSpace(string(rest))) > 0; {
			var key gossh.PublicKey
			if key, _, _, rest, err = gossh.ParseAuthorizedKey(rest); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			keys = append(keys, key)
		}
	}
	names := o.users
	if len(names) == 0 {
		names = list{"admin"}
	}
	var users []routeros.User
	for _, n := range names {
		name, policies, given := strings.Cut(n, "=")
		if !given {
			policies = "ssh,read,write,test"
		}
		users = append(users, routeros.User{
			Name: name, Keys: keys, AnyKey: len(o.authorizedKeyFiles) == 0, Policies: strings.Split(policies, ","),
		})
	}
	return users, nil
}

var rePool = regexp.MustCompile(`^([^=]+)=(\d+)([KMGTP]?)(?:i?B)?(?::(xfs|btrfs))?$`)

func parsePool(text string) (routeros.Pool, error) {
	m := rePool.FindStringSubmatch(text)
	if m == nil {
		return routeros.Pool{}, fmt.Errorf("pool %q: not name=size[:fs]", text)
	}
	n, err := strconv.ParseInt(m[2], 10, 64)
	shift := map[string]uint{"": 0, "K": 10, "M": 20, "G": 30, "T": 40, "P": 50}[m[3]]
	if err != nil || n<<shift>>shift != n {
		return routeros.Pool{}, fmt.Errorf("pool %q: size out of range", text)
	}
	return routeros.Pool{Name: m[1], Size: n << shift, FS: m[4]}, nil
}
