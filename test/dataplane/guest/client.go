package guest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"git.srvlab.io/whiskey/rds-csi-operator/test/dataplane/wire"
)

// Run runs a program to its end. Any end but exit status 0 is an error that
// carries what the program said.
func (g *Guest) Run(ctx context.Context, args ...string) (string, error) {
	r, err := g.Try(ctx, wire.Command{Args: args})
	if err != nil {
		return "", err
	}
	if r.Code != 0 || r.Failure != "" {
		return string(r.Stdout), fmt.Errorf("%s: %s: %s: %s%s", g.Name, strings.Join(args, " "), r.ExitText(), r.Stdout, r.Stderr)
	}
	return string(r.Stdout), nil
}

// Shell runs a script of busybox's shell.
func (g *Guest) Shell(ctx context.Context, script string) (string, error) {
	return g.Run(ctx, "sh", "-ec", script)
}

// Try runs a program, or starts it in the background, and tells how it ended.
func (g *Guest) Try(ctx context.Context, c wire.Command) (wire.Result, error) {
	return post[wire.Result](ctx, g, "/run", c)
}

// Program runs in the background of a guest.
type Program struct {
	guest *Guest
	id    int
}

// Start starts a program in the background.
func (g *Guest) Start(ctx context.Context, c wire.Command) (*Program, error) {
	c.Background = true
	r, err := g.Try(ctx, c)
	if err != nil {
		return nil, err
	}
	if r.Failure != "" {
		return nil, fmt.Errorf("%s: %s: %s", g.Name, strings.Join(c.Args, " "), r.Failure)
	}
	return &Program{guest: g, id: r.ID}, nil
}

// Signal reaches the program and all that it started.
func (p *Program) Signal(ctx context.Context, s syscall.Signal) error {
	_, err := post[wire.Result](ctx, p.guest, "/signal", wire.Signal{ID: p.id, Signal: int(s)})
	return err
}

// Look tells how far the program is.
func (p *Program) Look(ctx context.Context) (wire.Result, error) {
	return post[wire.Result](ctx, p.guest, "/look", wire.Signal{ID: p.id})
}

// Wait waits for the program's end.
func (p *Program) Wait(ctx context.Context) (wire.Result, error) {
	return post[wire.Result](ctx, p.guest, "/wait", wire.Signal{ID: p.id})
}

// Kill kills the program and waits until it is gone.
func (p *Program) Kill(ctx context.Context) (wire.Result, error) {
	if err := p.Signal(ctx, syscall.SIGKILL); err != nil {
		return wire.Result{}, err
	}
	return p.Wait(ctx)
}

// ReadFile reads a file of the guest; a missing one is fs.ErrNotExist.
func (g *Guest) ReadFile(ctx context.Context, path string) ([]byte, error) {
	return g.get(ctx, "/file?"+url.Values{"path": {path}}.Encode())
}

// WriteFile writes a file of the guest, in one piece, and the folders above it.
func (g *Guest) WriteFile(ctx context.Context, path string, mode fs.FileMode, content []byte) error {
	query := url.Values{"path": {path}, "mode": {fmt.Sprintf("%o", mode.Perm())}}
	_, err := g.do(ctx, http.MethodPut, "/file?"+query.Encode(), bytes.NewReader(content))
	return err
}

// Post sends the agent a request as JSON and decodes its answer.
func Post[Out any](ctx context.Context, g *Guest, path string, in any) (Out, error) {
	return post[Out](ctx, g, path, in)
}

func post[Out any](ctx context.Context, g *Guest, path string, in any) (Out, error) {
	var out Out
	body, err := json.Marshal(in)
	if err != nil {
		return out, err
	}
	answer, err := g.do(ctx, http.MethodPost, path, bytes.NewReader(body))
	if err != nil {
		return out, err
	}
	return out, json.Unmarshal(answer, &out)
}

func (g *Guest) get(ctx context.Context, path string) ([]byte, error) {
	return g.do(ctx, http.MethodGet, path, nil)
}

func (g *Guest) do(ctx context.Context, method, path string, body io.Reader) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+g.agent+path, body)
	if err != nil {
		return nil, err
	}
	response, err := g.http.Do(request)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", g.Name, err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", g.Name, err)
	}
	switch response.StatusCode {
	case http.StatusOK:
		return content, nil
	case http.StatusNotFound:
		return nil, fmt.Errorf("%s: %w: %s", g.Name, fs.ErrNotExist, strings.TrimSpace(string(content)))
	}
	return nil, fmt.Errorf("%s: %s", g.Name, strings.TrimSpace(string(content)))
}

// Dial connects to a socket inside the guest.
func (g *Guest) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", g.agent)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", g.Name, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	query := url.Values{"network": {network}, "address": {address}}
	_, err = fmt.Fprintf(conn, "GET /dial?%s HTTP/1.1\r\nHost: agent\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", query.Encode(), wire.Forward)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("%s: %w", g.Name, err)
	}
	in := bufio.NewReader(conn)
	response, err := http.ReadResponse(in, nil)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("%s: %w", g.Name, err)
	}
	defer response.Body.Close() // of a refusal; what was switched to another protocol has none
	if response.StatusCode != http.StatusSwitchingProtocols {
		text, _ := io.ReadAll(response.Body)
		conn.Close()
		return nil, fmt.Errorf("%s: connect to %s: %w", g.Name, address, errors.New(strings.TrimSpace(string(text))))
	}
	return &forwarded{Conn: conn, in: in}, nil
}

// forwarded reads first what came together with the answer.
type forwarded struct {
	net.Conn
	in *bufio.Reader
}

func (f *forwarded) Read(p []byte) (int, error) { return f.in.Read(p) }
