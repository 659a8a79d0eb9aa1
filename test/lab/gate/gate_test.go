package gate

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"k8s.io/client-go/rest"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/pki"
)

// rig is a gate before a server that counts the writes it gets.
func rig(t *testing.T) (*Gate, *http.Client, *atomic.Int32) {
	t.Helper()
	writes := &atomic.Int32{}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			_, _ = io.WriteString(w, r.Header.Get("Authorization"))
			return
		}
		writes.Add(1)
		body, _ := io.ReadAll(r.Body)
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write(body)
	}))
	t.Cleanup(server.Close)
	ca, err := pki.NewCA(t.TempDir(), "ca")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Issue("gate", nil)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	g, err := Start(address, &rest.Config{Host: server.URL, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}, cert)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Shut() })
	client, err := rest.HTTPClientFor(&rest.Config{Host: g.URL(), BearerToken: "mine", TLSClientConfig: rest.TLSClientConfig{CAData: ca.PEM}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	return g, client, writes
}

func ask(t *testing.T, c *http.Client, method, url, body string) (int, string, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := c.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

func TestPassesWithTheClientsIdentity(t *testing.T) {
	g, client, writes := rig(t)
	if code, text, err := ask(t, client, http.MethodGet, g.URL()+"/x", ""); err != nil || code != http.StatusOK || text != "Bearer mine" {
		t.Errorf("GET: %d %q, %v", code, text, err)
	}
	if code, text, err := ask(t, client, http.MethodPost, g.URL()+"/x", "body"); err != nil || code != http.StatusCreated || text != "body" {
		t.Errorf("POST: %d %q, %v", code, text, err)
	}
	if writes.Load() != 1 {
		t.Errorf("%d writes arrived, want 1", writes.Load())
	}
}

func TestCutsBeforeAndAfter(t *testing.T) {
	for name, test := range map[string]struct {
		hook    func(seen *[]Write) Hook
		arrives int32
	}{
		"before": {func(seen *[]Write) Hook {
			return Hook{Before: func(_ context.Context, w Write) error { *seen = append(*seen, w); return ErrCut }}
		}, 0},
		"after": {func(seen *[]Write) Hook {
			return Hook{After: func(_ context.Context, w Write, status int) error {
				if status != http.StatusCreated {
					return errors.New("not the server's answer")
				}
				*seen = append(*seen, w)
				return ErrCut
			}}
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			g, client, writes := rig(t)
			var seen []Write
			g.Watch(test.hook(&seen))
			if code, _, err := ask(t, client, http.MethodPatch, g.URL()+"/x", "body"); err == nil {
				t.Errorf("the client got an answer: %d", code)
			}
			if writes.Load() != test.arrives {
				t.Errorf("%d writes arrived, want %d", writes.Load(), test.arrives)
			}
			if len(seen) != 1 || seen[0].Method != http.MethodPatch || seen[0].Path != "/x" || string(seen[0].Body) != "body" {
				t.Errorf("the hook saw %+v", seen)
			}
		})
	}
}

func TestShutAndOpen(t *testing.T) {
	g, client, _ := rig(t)
	if err := g.Shut(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ask(t, client, http.MethodGet, g.URL()+"/x", ""); err == nil {
		t.Error("a gate that is shut let a request pass")
	}
	if err := g.Open(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ask(t, client, http.MethodGet, g.URL()+"/x", ""); err != nil {
		t.Error(err)
	}
}

// TestSeesTheAnswerToADeadClient: what was passed on before its client died has an
// answer all the same.
func TestSeesTheAnswerToADeadClient(t *testing.T) {
	g, client, writes := rig(t)
	ctx, die := context.WithCancel(t.Context())
	seen := make(chan int, 1)
	g.Watch(Hook{
		Before: func(client context.Context, _ Write) error {
			die()
			<-client.Done()
			return nil
		},
		After: func(client context.Context, _ Write, status int) error {
			if client.Err() == nil {
				t.Error("the client lives")
			}
			seen <- status
			return nil
		},
	})
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, g.URL()+"/x", strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	if response, err := client.Do(request); err == nil {
		_ = response.Body.Close()
		t.Error("a dead client got an answer")
	}
	if status := <-seen; status != http.StatusCreated || writes.Load() != 1 {
		t.Errorf("status %d, %d writes", status, writes.Load())
	}
}
