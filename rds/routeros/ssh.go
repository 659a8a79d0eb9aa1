package routeros

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// maxOutput bounds an answer, in bytes: 64 MiB are more than 50,000 volumes.
const maxOutput = 64 << 20

var errClosed = errors.New("the array client was closed")

// transport runs commands over one warm SSH connection, which it dials when a
// command needs it and drops when a command fails on it.
type transport struct {
	address        string
	client         *ssh.ClientConfig
	dialTimeout    time.Duration
	commandTimeout time.Duration
	slots          chan struct{} // one token for each command that may run
	connected      func()        // called for every new connection, before its first command
	sent           atomic.Uint64 // commands

	life context.Context // ends with close
	end  context.CancelFunc
	work sync.WaitGroup

	mu      sync.Mutex
	current *conn    // what new commands use
	dialing *dialing // under way, if not nil
}

// conn is one connection. It ends when it is retired and its last command is over,
// so that a command that hangs does not cut off those beside it.
type conn struct {
	client  *ssh.Client
	dead    chan struct{} // closed when the connection is lost
	users   int           // guarded by transport.mu, like retired
	retired bool
}

// dialing is shared by all commands that wait for the same connection.
type dialing struct {
	done chan struct{}
	conn *conn
	err  error
}

func newTransport(cfg *Config, connected func()) (*transport, error) {
	signer, err := userKey(cfg)
	if err != nil {
		return nil, err
	}
	pinned, err := pinnedKeys(cfg)
	if err != nil {
		return nil, err
	}
	t := &transport{
		address: cfg.Address,
		client: &ssh.ClientConfig{
			User:              cfg.User,
			Auth:              []ssh.AuthMethod{ssh.PublicKeys(signer)},
			HostKeyCallback:   checkHostKey(pinned, cfg.InsecureAcceptAnyHostKey),
			HostKeyAlgorithms: hostKeyAlgorithms(pinned),
		},
		dialTimeout:    cfg.DialTimeout.Duration,
		commandTimeout: cfg.CommandTimeout.Duration,
		slots:          make(chan struct{}, cfg.MaxChannels),
		connected:      connected,
	}
	t.life, t.end = context.WithCancel(context.Background())
	return t, nil
}

// close ends the connection and waits for everything that was started.
func (t *transport) close() {
	t.mu.Lock()
	t.end()
	if t.current != nil {
		_ = t.current.client.Close()
	}
	t.mu.Unlock()
	t.work.Wait()
}

// run sends one line and returns what came back until the channel ended or ctx
// did. sent tells whether the array may have seen the command. complete is asked
// whether the answer is whole; the connection of one that is not is dropped.
func (t *transport) run(ctx context.Context, line string, complete func([]byte) bool) (out []byte, sent bool, err error) {
	ctx, done, err := t.begin(ctx)
	if err != nil {
		return nil, false, err
	}
	defer done()
	select {
	case t.slots <- struct{}{}:
		defer func() { <-t.slots }()
	case <-ctx.Done():
		return nil, false, &rds.Error{Kind: rds.ErrBusy, Err: ctx.Err(), Hint: "commands waited in line for the array"}
	}
	c, ch, err := t.open(ctx)
	if err != nil {
		return nil, false, err
	}
	ctx, cancel := context.WithTimeout(ctx, t.commandTimeout)
	defer cancel()
	out, sent, err = t.exec(ctx, ch, line)
	t.release(c, err != nil || !complete(out))
	return out, sent, err
}

// begin makes a command one that close ends and waits for.
func (t *transport) begin(ctx context.Context) (context.Context, func(), error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.life.Err() != nil {
		return nil, nil, &rds.Error{Kind: rds.ErrUnreachable, Err: errClosed}
	}
	t.work.Add(1)
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(t.life, cancel)
	return ctx, func() { stop(); cancel(); t.work.Done() }, nil
}

// open gives a channel that is ready for a command. A warm connection that turns
// out to be dead is replaced, once: nothing has been sent on it.
func (t *transport) open(ctx context.Context) (*conn, ssh.Channel, error) {
	for again := false; ; again = true {
		c, warm, err := t.acquire(ctx)
		if err != nil {
			return nil, nil, err
		}
		ch, err := t.openOn(ctx, c)
		if err == nil {
			return c, ch, nil
		}
		var refused *ssh.OpenChannelError
		isRefused := errors.As(err, &refused)
		t.release(c, !isRefused)
		switch {
		case isRefused:
			return nil, nil, &rds.Error{Kind: rds.ErrBusy, Err: err, Hint: "the array refuses another session; see its max-sessions and maxChannels here"}
		case ctx.Err() != nil || !warm || again:
			return nil, nil, &rds.Error{Kind: rds.ErrUnreachable, Err: err}
		}
	}
}

// openOn opens a channel within the time a handshake may take.
func (t *transport) openOn(ctx context.Context, c *conn) (ssh.Channel, error) {
	ctx, cancel := context.WithTimeout(ctx, min(t.dialTimeout, t.commandTimeout))
	defer cancel()
	type opened struct {
		ch  ssh.Channel
		err error
	}
	result := make(chan opened)
	t.work.Go(func() {
		ch, requests, err := c.client.OpenChannel("session", nil)
		if err == nil {
			t.work.Go(func() { ssh.DiscardRequests(requests) }) // exit-status: not to be trusted
			t.work.Go(func() { _, _ = io.Copy(io.Discard, ch.Stderr()) })
		}
		select {
		case result <- opened{ch, err}:
		case <-ctx.Done():
			if err == nil {
				_ = ch.Close()
			}
		}
	})
	select {
	case r := <-result:
		return r.ch, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("no channel was opened in time: %w", ctx.Err())
	}
}

// exec sends the command on its channel and reads until the end.
func (t *transport) exec(ctx context.Context, ch ssh.Channel, line string) ([]byte, bool, error) {
	type answered struct {
		out  []byte
		sent bool
		err  error
	}
	result := make(chan answered, 1)
	t.sent.Add(1)
	t.work.Go(func() {
		ok, err := ch.SendRequest("exec", true, ssh.Marshal(struct{ Command string }{line}))
		if err != nil {
			result <- answered{sent: true, err: fmt.Errorf("send the command: %w", err)}
			return
		}
		if !ok {
			result <- answered{err: &rds.Error{Kind: rds.ErrDenied, Err: errors.New("the array refuses to run commands"), Hint: "does the user's group have the policy ssh?"}}
			return
		}
		out, err := io.ReadAll(io.LimitReader(ch, maxOutput+1))
		if err == nil && len(out) > maxOutput {
			err = fmt.Errorf("the answer is longer than %d bytes", maxOutput)
		}
		result <- answered{out, true, err}
	})
	defer func() { _ = ch.Close() }()
	select {
	case r := <-result:
		return r.out, r.sent, r.err
	case <-ctx.Done():
		return nil, true, fmt.Errorf("no answer in time: %w", ctx.Err())
	}
}

// acquire gives the warm connection or waits for a new one.
func (t *transport) acquire(ctx context.Context) (c *conn, warm bool, err error) {
	t.mu.Lock()
	if c := t.current; c != nil {
		select {
		case <-c.dead:
			t.retire(c)
		default:
			c.users++
			t.mu.Unlock()
			return c, true, nil
		}
	}
	d := t.dialing
	if d == nil {
		d = &dialing{done: make(chan struct{})}
		t.dialing = d
		t.work.Go(func() { t.dial(d) })
	}
	t.mu.Unlock()
	select {
	case <-d.done:
	case <-ctx.Done():
		return nil, false, &rds.Error{Kind: rds.ErrUnreachable, Err: fmt.Errorf("waited for a connection: %w", ctx.Err())}
	}
	if d.err != nil {
		return nil, false, d.err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if d.conn.retired {
		return nil, false, &rds.Error{Kind: rds.ErrUnreachable, Err: errors.New("the connection was lost at once")}
	}
	d.conn.users++
	return d.conn, false, nil
}

// release ends a command's use of its connection; drop retires it as well.
func (t *transport) release(c *conn, drop bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.users--
	if drop {
		t.retire(c)
	}
	if c.retired && c.users == 0 {
		_ = c.client.Close()
	}
}

// retire keeps new commands off a connection. mu is held.
func (t *transport) retire(c *conn) {
	c.retired = true
	if t.current == c {
		t.current = nil
	}
	if c.users == 0 {
		_ = c.client.Close()
	}
}

// dial makes the next connection. It outlives the command that asked for it,
// since others wait for it too.
func (t *transport) dial(d *dialing) {
	client, err := t.connect()
	t.mu.Lock()
	defer t.mu.Unlock()
	defer close(d.done)
	t.dialing = nil
	if err != nil {
		d.err = err
		return
	}
	d.conn = &conn{client: client, dead: make(chan struct{})}
	t.current = d.conn
	t.work.Go(func() {
		_ = client.Wait()
		close(d.conn.dead)
	})
	if t.life.Err() != nil {
		_ = client.Close()
	}
	t.connected()
}

func (t *transport) connect() (*ssh.Client, error) {
	ctx, cancel := context.WithTimeout(t.life, t.dialTimeout)
	defer cancel()
	// Dead peers are noticed by TCP: RouterOS does not answer SSH's keepalive.
	dialer := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}}
	raw, err := dialer.DialContext(ctx, "tcp", t.address)
	if err != nil {
		return nil, &rds.Error{Kind: rds.ErrUnreachable, Err: err}
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() }) // bounds the handshake
	defer stop()
	c, channels, requests, err := ssh.NewClientConn(raw, t.address, t.client)
	if err != nil {
		_ = raw.Close()
		return nil, classifyHandshake(err, ctx.Err())
	}
	return ssh.NewClient(c, channels, requests), nil
}
