package gate

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"

	"k8s.io/client-go/rest"
)

// Write is a request that is to change something.
type Write struct {
	Method, Path string
	Body         []byte
}

// Hook sees the writes. Both functions may block; ctx ends when the client is gone.
type Hook struct {
	// Before is called when a write arrives. An error cuts its connection: the API
	// server never hears of it.
	Before func(ctx context.Context, w Write) error
	// After is called when the API server has answered, also if the client died
	// meanwhile. An error cuts the
	// connection: the client never learns what became of the write.
	After func(ctx context.Context, w Write, status int) error
}

// Gate is an HTTPS server on loopback that passes everything on.
type Gate struct {
	address string
	cert    tls.Certificate
	proxy   *httputil.ReverseProxy

	mu     sync.Mutex
	hook   Hook
	server *http.Server // nil while shut
}

// writeKey finds in the context of a write that is passed on what it is.
type writeKey struct{}

type passing struct {
	write  Write
	client context.Context
}

// Start opens a gate at an address to the server of a configuration. cert is what
// it shows to clients.
func Start(address string, to *rest.Config, cert tls.Certificate) (*Gate, error) {
	target, err := url.Parse(to.Host)
	if err != nil {
		return nil, err
	}
	// The clients' own identities pass, so the gate brings none.
	transport, err := rest.TransportFor(rest.AnonymousClientConfig(to))
	if err != nil {
		return nil, err
	}
	g := &Gate{address: address, cert: cert}
	g.proxy = &httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:      transport,
		FlushInterval:  -1, // watches
		ModifyResponse: g.answered,
		ErrorLog:       log.New(io.Discard, "", 0),
		// The client is to see a broken connection, not an answer of the gate's.
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	return g, g.Open()
}

// URL is where clients find the gate.
func (g *Gate) URL() string { return "https://" + g.address }

// Watch makes a hook see the writes from now on; the zero Hook lets all pass.
func (g *Gate) Watch(h Hook) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hook = h
}

func (g *Gate) watching() Hook {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.hook
}

// Shut cuts all connections and refuses new ones until Open.
func (g *Gate) Shut() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.server == nil {
		return nil
	}
	server := g.server
	g.server = nil
	return server.Close()
}

// Open lets clients in again.
func (g *Gate) Open() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.server != nil {
		return nil
	}
	listener, err := net.Listen("tcp", g.address)
	if err != nil {
		return err
	}
	g.server = &http.Server{
		Handler:           http.HandlerFunc(g.pass),
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{g.cert}, MinVersion: tls.VersionTLS12},
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          log.New(io.Discard, "", 0),
	}
	go func(s *http.Server) { _ = s.ServeTLS(listener, "", "") }(g.server) // it ends with Shut
	return nil
}

func (g *Gate) pass(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		g.proxy.ServeHTTP(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	write := Write{Method: r.Method, Path: r.URL.Path, Body: body}
	if before := g.watching().Before; before != nil && before(r.Context(), write) != nil {
		panic(http.ErrAbortHandler)
	}
	// What was passed on is answered and seen even if its client dies meanwhile.
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	g.proxy.ServeHTTP(w, r.WithContext(context.WithValue(ctx, writeKey{}, passing{write, r.Context()})))
}

func (g *Gate) answered(r *http.Response) error {
	p, ok := r.Request.Context().Value(writeKey{}).(passing)
	if after := g.watching().After; ok && after != nil {
		return after(p.client, p.write, r.StatusCode)
	}
	return nil
}

// ErrCut is for hooks that have no better reason.
var ErrCut = errors.New("cut off by the gate")
