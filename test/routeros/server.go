package routeros

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gliderlabs/ssh"
	gossh "golang.org/x/crypto/ssh"

	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros/internal/array"
)

// Server is one simulated array. Its methods are safe for concurrent use.
type Server struct {
	opts  Options
	array *array.Array
	ssh   *ssh.Server

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // every goroutine of ours

	mu       sync.Mutex
	settings Settings
	listener net.Listener
	hostKey  gossh.Signer
	conns    map[*conn]bool
	down     bool
	closed   bool
	// boot is the context of running scripts; a reboot ends it.
	boot       context.Context
	endBoot    context.CancelFunc
	faults     []*Injection
	random     *rand.Rand
	whole      sync.Mutex // held by the script that runs, with Settings.WholeScripts
	log        []*record
	jobs       []*record
	stats      Stats
	running    int
	idle       chan struct{} // closed and replaced when running becomes 0
	failures   int           // for alternating exit statuses
	onStep     func(context.Context, Command, Step)
	nextConnID int
	nextFault  int

	bytesIn, bytesOut atomic.Int64
}

// New makes an array that does not listen yet.
func New(opts Options) (*Server, error) {
	opts = opts.withDefaults()
	s := &Server{
		opts: opts, settings: opts.Settings, hostKey: opts.HostKey, conns: map[*conn]bool{},
		random: rand.New(rand.NewPCG(opts.Seed, 1)), idle: make(chan struct{}),
	}
	if s.hostKey == nil {
		key, err := NewHostKey(opts.HostKeyType)
		if err != nil {
			return nil, err
		}
		s.hostKey = key
	}
	phrases := DefaultPhrases()
	if opts.Phrases != nil {
		phrases = *opts.Phrases
	}
	var err error
	s.array, err = array.New(array.Config{
		Now: opts.Clock.Now, Backend: opts.Backend, Phrases: phrases, Style: s.settings.style(),
		Version: s.settings.Version, Board: opts.Board, Identity: opts.Identity,
		MaxSlotLength: 32, DefaultNQN: "nqn.2000-02.com.mikrotik:", DefaultNVMePort: 4420,
	})
	if err != nil {
		return nil, fmt.Errorf("menus: %w", err)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.boot, s.endBoot = context.WithCancel(s.ctx)
	s.ssh = s.sshServer()
	return s, nil
}

func (s Settings) style() array.Style {
	return array.Style{
		Width: s.Width, ShowIdleExport: s.ShowIdleExport, FalseFlags: s.FalseFlags, RoundedFileSize: s.RoundedFileSize,
	}
}

// Start listens on addr, 127.0.0.1:0 when empty.
func (s *Server) Start(addr string) error {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.listener != nil {
		return errors.Join(errors.New("already started or closed"), l.Close())
	}
	s.listener = l
	s.wg.Go(func() { s.accept(l) })
	return nil
}

// Addr is host:port of the SSH server; empty before Start.
func (s *Server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return ""
	}
	return s.listener.Addr().String()
}

// HostKey is the host's present public key.
func (s *Server) HostKey() gossh.PublicKey {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hostKey.PublicKey()
}

// HostKeyLine is HostKey as files of known keys have it.
func (s *Server) HostKeyLine() string {
	return strings.TrimSpace(string(gossh.MarshalAuthorizedKey(s.HostKey())))
}

// RotateHostKey gives the host a new key of the same type, as a replaced or
// reset array has.
func (s *Server) RotateHostKey() (gossh.PublicKey, error) {
	t := RSA
	if s.HostKey().Type() == gossh.KeyAlgoED25519 {
		t = Ed25519
	}
	key, err := NewHostKey(t)
	if err != nil {
		return nil, err
	}
	s.ssh.AddHostKey(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hostKey = key
	return key.PublicKey(), nil
}

// Close stops listening, cuts every connection, stops every script and waits
// until nothing of the server runs any more.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	l := s.listener
	s.mu.Unlock()
	var err error
	if l != nil {
		err = l.Close()
	}
	s.cancel()
	s.CutAll()
	s.wg.Wait()
	return err
}

// CutAll cuts every connection. Scripts run on or not, as Settings say.
func (s *Server) CutAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.cut()
	}
}

// Down takes the array off the network, as the first half of a reboot:
// connections are cut, scripts end, new connections are refused.
func (s *Server) Down() error {
	s.mu.Lock()
	s.down = true
	s.endBoot()
	s.mu.Unlock()
	s.CutAll()
	return s.array.Replay(ExportOff)
}

// Up ends Down. All settings and exports are as before.
func (s *Server) Up() error {
	s.array.Boot()
	err := s.array.Replay(ExportOn)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = false
	s.boot, s.endBoot = context.WithCancel(s.ctx)
	return err
}

// Reboot is Down, a pause and Up.
func (s *Server) Reboot(pause time.Duration) error {
	if err := s.Down(); err != nil {
		return err
	}
	s.spawn(func() {
		select {
		case <-s.opts.Clock.After(pause):
			_ = s.Up() // a backend that fails here fails again with the next change
		case <-s.ctx.Done():
		}
	})
	return nil
}

// spawn runs f unless the server is closed.
func (s *Server) spawn(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.wg.Go(f)
	return true
}

// Configure changes the settings while the array runs.
func (s *Server) Configure(change func(*Settings)) {
	s.mu.Lock()
	change(&s.settings)
	s.settings = s.settings.withDefaults()
	now := s.settings
	s.mu.Unlock()
	s.array.Configure(func(c *array.Config) {
		c.Style, c.Version = now.style(), now.Version
		if now.Phrases != nil {
			c.Phrases = *now.Phrases
		}
	})
}

// Settings returns the present settings.
func (s *Server) Settings() Settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settings
}
