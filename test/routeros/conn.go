package routeros

import (
	"net"
	"sync"
	"sync/atomic"

	"github.com/gliderlabs/ssh"
	gossh "golang.org/x/crypto/ssh"
)

// conn is one TCP connection; it counts bytes and can be cut.
type conn struct {
	net.Conn
	id      int
	once    sync.Once
	in, out *atomic.Int64
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.in.Add(int64(n))
	return n, err
}

func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.out.Add(int64(n))
	return n, err
}

// Close may be called by both ends of a cut.
func (c *conn) Close() (err error) {
	c.once.Do(func() { err = c.Conn.Close() })
	return err
}

func (c *conn) cut() { _ = c.Close() } // the peer sees it; nobody is left to tell

// accept serves connections until the listener is closed.
func (s *Server) accept(l net.Listener) {
	for {
		raw, err := l.Accept()
		if err != nil {
			return
		}
		c := s.admit(raw)
		if c == nil {
			_ = raw.Close() // refused
			continue
		}
		if !s.spawn(func() { s.serve(c) }) {
			s.forget(c)
		}
	}
}

// admit registers a connection, nil when the array refuses it.
func (s *Server) admit(raw net.Conn) *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.down || len(s.conns) >= s.settings.MaxSessions {
		s.stats.Refused++
		return nil
	}
	s.nextConnID++
	s.stats.Connections++
	c := &conn{Conn: raw, id: s.nextConnID, in: &s.bytesIn, out: &s.bytesOut}
	s.conns[c] = true
	return c
}

func (s *Server) forget(c *conn) {
	c.cut()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

func (s *Server) serve(c *conn) {
	defer s.forget(c)
	s.ssh.HandleConn(c)
}

type connKey struct{}

// sshServer configures the SSH side.
func (s *Server) sshServer() *ssh.Server {
	return &ssh.Server{
		Version:     "ROSSSH",
		HostSigners: []ssh.Signer{s.hostKey},
		ConnCallback: func(ctx ssh.Context, c net.Conn) net.Conn {
			ctx.SetValue(connKey{}, c)
			return c
		},
		ServerConfigCallback: func(ssh.Context) *gossh.ServerConfig {
			cfg := &gossh.ServerConfig{
				// No ECDSA: RouterOS has RSA and ed25519 user keys only.
				PublicKeyAuthAlgorithms: []string{
					gossh.KeyAlgoED25519, gossh.KeyAlgoRSASHA256, gossh.KeyAlgoRSASHA512, gossh.KeyAlgoRSA,
				},
			}
			cfg.MACs = s.opts.MACs
			return cfg
		},
		PublicKeyHandler: func(ctx ssh.Context, key ssh.PublicKey) bool { return s.login(ctx.User(), "", key) },
		PasswordHandler:  func(ctx ssh.Context, pw string) bool { return s.login(ctx.User(), pw, nil) },
		ChannelHandlers:  map[string]ssh.ChannelHandler{"session": s.channel},
		RequestHandlers: map[string]ssh.RequestHandler{
			"default": func(ctx ssh.Context, _ *ssh.Server, _ *gossh.Request) (bool, []byte) {
				if !s.Settings().AnswerKeepalive {
					<-ctx.Done() // never answered
				}
				return false, nil
			},
		},
	}
}

// login decides; a refused one is counted.
func (s *Server) login(name, password string, key gossh.PublicKey) bool {
	ok := false
	for _, u := range s.opts.Users {
		if u.Name == name && u.may("ssh") && u.accepts(password, key) {
			ok = true
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ok = ok && !s.settings.RefuseLogins
	if !ok {
		s.stats.RefusedLogins++
	}
	return ok
}

func (u User) accepts(password string, key gossh.PublicKey) bool {
	if key == nil {
		return u.Password != "" && u.Password == password
	}
	if t := key.Type(); t != gossh.KeyAlgoRSA && t != gossh.KeyAlgoED25519 {
		return false
	}
	for _, k := range u.Keys {
		if ssh.KeysEqual(k, key) {
			return true
		}
	}
	return u.AnyKey
}

func (s *Server) user(name string) User {
	for _, u := range s.opts.Users {
		if u.Name == name {
			return u
		}
	}
	return User{}
}
