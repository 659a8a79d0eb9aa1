// Package kubetest is a small stand-in for the Kubernetes API server: objects in
// memory behind real HTTP, with resource versions, conflicts and watches, so
// that tests drive a real client-go with its informers and leader election.
// Whatever needs the API server's own behaviour is tested against a real one.
//
// It imports k8s.io/client-go's scheme and API types, for tests only.
package kubetest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
)

// object is what every API type here is.
type object interface {
	runtime.Object
	metav1.Object
}

type change struct {
	kind   string // ADDED, MODIFIED, DELETED
	object object
}

// Server is the stand-in.
type Server struct {
	URL string

	mu       sync.Mutex
	version  int
	objects  map[string]map[string]object // by collection's path, by name
	watchers map[string][]chan change
	requests []string
	fault    func(*http.Request) int
	unserved map[string]bool // resources
}

// New starts a server that lives as long as the test.
func New(t *testing.T) *Server {
	t.Helper()
	s, stop := Start()
	t.Cleanup(stop)
	return s
}

// Start starts a server that lives until stop is called.
func Start() (s *Server, stop func()) {
	s = &Server{objects: map[string]map[string]object{}, watchers: map[string][]chan change{}, unserved: map[string]bool{}}
	h := httptest.NewServer(s)
	s.URL = h.URL
	return s, func() {
		h.CloseClientConnections()
		h.Close()
	}
}

// Config is a client's configuration.
func (s *Server) Config() *rest.Config { return &rest.Config{Host: s.URL, QPS: 1000, Burst: 1000} }

// Kubeconfig writes a kubeconfig file and returns its path.
func (s *Server) Kubeconfig(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(file, Kubeconfig(s.URL), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// Kubeconfig is the content of a kubeconfig file for a server at a URL.
func Kubeconfig(url string) []byte {
	return fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Config","current-context":"x","clusters":[{"name":"x","cluster":{"server":%q}}],"contexts":[{"name":"x","context":{"cluster":"x","user":"x"}}],"users":[{"name":"x","user":{}}]}`, url)
}

// Fail makes requests fail for which fault returns a status code; nil heals.
func (s *Server) Fail(fault func(*http.Request) int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
}

// Unserve makes a resource unknown, as where its definition is not installed.
func (s *Server) Unserve(resource string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unserved[resource] = true
}

// Requests lists what was asked so far: method and path, with "?watch" for watches.
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Put stores an object in a collection, for example /api/v1/persistentvolumes.
func (s *Server) Put(collection string, o object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store(collection, o)
}

// Objects are copies of what a collection holds.
func (s *Server) Objects(collection string) []runtime.Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []runtime.Object
	for _, o := range s.objects[collection] {
		all = append(all, o.DeepCopyObject())
	}
	return all
}

// Remove deletes an object.
func (s *Server) Remove(collection, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.objects[collection][name]; o != nil {
		delete(s.objects[collection], name)
		s.version++
		s.notify(collection, change{"DELETED", o})
	}
}

func (s *Server) store(collection string, o object) {
	kind := "MODIFIED"
	if s.objects[collection] == nil {
		s.objects[collection] = map[string]object{}
	}
	if s.objects[collection][o.GetName()] == nil {
		kind = "ADDED"
	}
	o = o.DeepCopyObject().(object)
	s.version++
	o.SetResourceVersion(strconv.Itoa(s.version))
	if kinds, _, err := scheme.Scheme.ObjectKinds(o); err == nil {
		o.GetObjectKind().SetGroupVersionKind(kinds[0])
	}
	s.objects[collection][o.GetName()] = o
	s.notify(collection, change{kind, o})
}

func (s *Server) notify(collection string, c change) {
	for _, w := range s.watchers[collection] {
		w <- c
	}
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	watching := r.URL.Query().Get("watch") != ""
	s.mu.Lock()
	line := r.Method + " " + r.URL.Path
	if watching {
		line += "?watch"
	}
	s.requests = append(s.requests, line)
	fault := s.fault
	s.mu.Unlock()
	if fault != nil {
		if code := fault(r); code != 0 {
			refuse(w, code, metav1.StatusReasonServiceUnavailable)
			return
		}
	}
	collection, name := r.URL.Path, ""
	if parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/"); isObject(parts) {
		collection, name = path.Dir(r.URL.Path), parts[len(parts)-1]
	}
	s.mu.Lock()
	unserved := s.unserved[path.Base(collection)]
	s.mu.Unlock()
	switch {
	case unserved:
		http.NotFound(w, r)
	case watching:
		s.watch(w, r, collection)
	case r.Method == http.MethodGet && name == "":
		s.list(w, collection)
	case r.Method == http.MethodGet:
		s.get(w, collection, name)
	case r.Method == http.MethodPost, r.Method == http.MethodPut:
		s.write(w, r, collection)
	default:
		refuse(w, http.StatusMethodNotAllowed, metav1.StatusReasonMethodNotAllowed)
	}
}

// isObject tells /api/v1/x/name and /apis/g/v1/namespaces/n/x/name from collections.
func isObject(parts []string) bool {
	rest := parts[min(len(parts), 2):]
	if parts[0] == "apis" {
		rest = parts[min(len(parts), 3):]
	}
	if len(rest) > 2 && rest[0] == "namespaces" {
		rest = rest[2:]
	}
	return len(rest) == 2
}

// listKinds are the collections that are served.
var listKinds = map[string]string{
	"pods": "PodList", "virtualmachineinstancemigrations": "VirtualMachineInstanceMigrationList",
	"persistentvolumes": "PersistentVolumeList", "csinodes": "CSINodeList", "volumeattachments": "VolumeAttachmentList", "leases": "LeaseList",
}

// apiVersion reads group and version from a collection's path.
func apiVersion(collection string) string {
	parts := strings.Split(strings.Trim(collection, "/"), "/")
	if parts[0] == "api" {
		return parts[1]
	}
	return parts[1] + "/" + parts[2]
}

func (s *Server) list(w http.ResponseWriter, collection string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	items := make([]object, 0)
	for _, o := range s.objects[collection] {
		items = append(items, o)
	}
	answer(w, http.StatusOK, map[string]any{
		"kind": listKinds[path.Base(collection)], "apiVersion": apiVersion(collection), "metadata": map[string]any{"resourceVersion": strconv.Itoa(s.version)}, "items": items,
	})
}

func (s *Server) get(w http.ResponseWriter, collection, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.objects[collection][name]
	if o == nil {
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound)
		return
	}
	answer(w, http.StatusOK, o)
}

func (s *Server) write(w http.ResponseWriter, r *http.Request, collection string) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	decoded, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, nil)
	if err != nil {
		refuse(w, http.StatusBadRequest, metav1.StatusReasonBadRequest)
		return
	}
	o := decoded.(object)
	s.mu.Lock()
	defer s.mu.Unlock()
	had := s.objects[collection][o.GetName()]
	switch {
	case r.Method == http.MethodPost && had != nil:
		refuse(w, http.StatusConflict, metav1.StatusReasonAlreadyExists)
		return
	case r.Method == http.MethodPut && had == nil:
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound)
		return
	case r.Method == http.MethodPut && o.GetResourceVersion() != had.GetResourceVersion():
		refuse(w, http.StatusConflict, metav1.StatusReasonConflict)
		return
	}
	s.store(collection, o)
	answer(w, http.StatusOK, s.objects[collection][o.GetName()])
}

func (s *Server) watch(w http.ResponseWriter, r *http.Request, collection string) {
	if r.URL.Query().Get("sendInitialEvents") != "" {
		refuse(w, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid) // then client-go lists
		return
	}
	// Deep enough that no test fills it while the lock is held.
	changes := make(chan change, 1000)
	since, _ := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	s.mu.Lock()
	for _, o := range s.objects[collection] {
		if version, _ := strconv.Atoi(o.GetResourceVersion()); version > since {
			changes <- change{"ADDED", o}
		}
	}
	s.watchers[collection] = append(s.watchers[collection], changes)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.watchers[collection] = slices.DeleteFunc(s.watchers[collection], func(c chan change) bool { return c == changes })
	}()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	flush := w.(http.Flusher).Flush
	flush()
	for {
		select {
		case <-r.Context().Done():
			return
		case c := <-changes:
			if json.NewEncoder(w).Encode(map[string]any{"type": c.kind, "object": c.object}) != nil {
				return
			}
			flush()
		}
	}
}

func refuse(w http.ResponseWriter, code int, reason metav1.StatusReason) {
	answer(w, code, metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: int32(code), Reason: reason, Message: string(reason),
	})
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // the client sees a broken answer
}
