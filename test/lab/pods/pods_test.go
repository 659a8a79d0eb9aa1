package pods_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/pods"
)

// The containers of the test run this binary, with a first argument that no test has.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "web" {
		if err := web(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// seen is what a container sees.
type seen struct {
	Args []string
	Env  map[string]string
	File string // the content of --file
	User string // whom the API server takes it for
}

// web is a program as one finds in containers.
func web(args []string) error {
	flags := flag.NewFlagSet("web", flag.ContinueOnError)
	listen, file := flags.String("listen", "", ""), flags.String("file", "", "")
	for _, name := range []string{"namespace", "added"} {
		flags.String(name, "", "")
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	well := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		select {
		case <-well:
			http.Error(w, "unwell", http.StatusInternalServerError)
		default:
		}
	})
	mux.HandleFunc("/unwell", func(http.ResponseWriter, *http.Request) { close(well) })
	mux.HandleFunc("/exit", func(http.ResponseWriter, *http.Request) { os.Exit(3) })
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		user, err := whoAmI(ctx)
		if err != nil {
			user = err.Error()
		}
		content, _ := os.ReadFile(*file) // an empty one will be noticed
		s := seen{Args: args, File: string(content), User: user, Env: map[string]string{}}
		for _, e := range os.Environ() {
			name, value, _ := strings.Cut(e, "=")
			s.Env[name] = value
		}
		_ = json.NewEncoder(w).Encode(s)
	})
	server := &http.Server{Addr: *listen, Handler: mux, ReadHeaderTimeout: time.Second}
	go func() {
		<-ctx.Done()
		_ = os.WriteFile(filepath.Join(os.Getenv("HOST_DIR"), "ended"), []byte("by SIGTERM"), 0o600)
		_ = server.Close()
	}()
	return server.ListenAndServe()
}

func whoAmI(ctx context.Context) (string, error) {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return "", err
	}
	c, err := kubernetes.NewForConfig(config)
	if err != nil {
		return "", err
	}
	review, err := c.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return review.Status.UserInfo.Username, nil
}

const manifests = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: web, namespace: pods}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: web, namespace: pods}
data: {config.yaml: "keyFile: /etc/web/keys/main"}
---
apiVersion: v1
kind: Secret
metadata: {name: web, namespace: pods}
stringData: {key: the key, word: from the Secret}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: pods}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: pods}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      serviceAccountName: web
      terminationGracePeriodSeconds: 5
      containers:
      - name: web
        image: registry.example/web:v1
        command: [/web, web]
        args: ["--listen=:8080", --file=/etc/web/config.yaml, --namespace=$(NAMESPACE)]
        env:
        - {name: NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
        - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
        - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
        - {name: WORD, valueFrom: {secretKeyRef: {name: web, key: word}}}
        - {name: HOST_DIR, value: /host}
        - {name: SOCKET, value: "unix:///run/web.sock"}
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /healthz, port: http}}
        livenessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1, failureThreshold: 2}
        volumeMounts:
        - {name: config, mountPath: /etc/web}
        - {name: host, mountPath: /host}
        - {name: run, mountPath: /run}
      volumes:
      - name: config
        projected:
          sources:
          - configMap: {name: web}
          - secret: {name: web, items: [{key: key, path: keys/main}]}
      - {name: host, hostPath: {path: /srv/web, type: DirectoryOrCreate}}
      - {name: run, emptyDir: {}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: played, namespace: pods}
spec:
  selector: {matchLabels: {app: played}}
  template:
    metadata: {labels: {app: played}}
    spec:
      containers: [{name: c, image: registry.example/unknown}]
---
apiVersion: v1
kind: Pod
metadata: {name: unknown, namespace: pods, labels: {app: unknown}}
spec:
  containers: [{name: c, image: registry.example/unknown}]
---
apiVersion: v1
kind: Pod
metadata: {name: early, namespace: pods, labels: {app: early}}
spec:
  initContainers: [{name: i, image: registry.example/web:v1}]
  containers: [{name: c, image: registry.example/web:v1}]
`

// site is a lab with the manifests.
type site struct {
	*lab.Cluster
}

func TestPods(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a whole cluster: run without -short")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute) // a cold build
	defer cancel()
	self, err := os.Executable()
	must(t, err)
	c, err := lab.Start(ctx, lab.Options{WithoutKubeVirt: true, Nodes: []string{"node-a", "node-b"}, Pods: &pods.Options{
		Play: func(pod *corev1.Pod) bool { return pod.Labels["app"] == "played" },
	}})
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	c.Pods().Add("registry.example/web:v1", pods.Program{Path: self, Args: []string{"--added=$(LAB_POD_IP) $(KUBECONFIG)"}})
	s := site{c}
	ctx, cancel = context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	must(t, c.CreateNamespace(ctx, "pods"))
	must(t, c.ApplyYAML(ctx, manifests))
	t.Run("what a container sees", func(t *testing.T) { s.sees(ctx, t) })
	t.Run("an exit and a failed probe are restarts", func(t *testing.T) { s.restarts(ctx, t) })
	t.Run("a deleted pod gets SIGTERM and is replaced", func(t *testing.T) { s.deletion(ctx, t) })
	t.Run("what is not supported waits", func(t *testing.T) { s.waits(ctx, t) })
	t.Run("a DaemonSet's played pods", func(t *testing.T) { must(t, s.WaitFor(ctx, "two of them", s.pods("app=played", lab.PodReady, 2))) })
}

// pods is a condition: so many pods are as they should be, and there are no others.
func (s site) pods(labels string, is func(*corev1.Pod) bool, n int) func(context.Context) (bool, error) {
	return func(ctx context.Context) (bool, error) {
		all, err := s.list(ctx, labels)
		for i := range all {
			if !is(&all[i]) {
				return false, err
			}
		}
		return len(all) == n, err
	}
}

func (s site) list(ctx context.Context, selector string) ([]corev1.Pod, error) {
	var list corev1.PodList
	name, value, _ := strings.Cut(selector, "=")
	err := s.Client.List(ctx, &list, client.InNamespace("pods"), client.MatchingLabels{name: value})
	return list.Items, err
}

func (s site) sees(ctx context.Context, t *testing.T) {
	must(t, s.WaitFor(ctx, "two ready pods", s.pods("app=web", lab.PodReady, 2)))
	at, err := s.ServiceAddresses(ctx, "pods", "web", "http")
	must(t, err)
	if len(at) != 2 {
		t.Fatalf("the Service leads to %v", at)
	}
	all, err := s.list(ctx, "app=web")
	must(t, err)
	for _, pod := range all {
		var got seen
		must(t, json.Unmarshal([]byte(get(ctx, t, pod.Status.PodIP+":8080", "/")), &got))
		config := got.Env["KUBECONFIG"]
		if len(got.Args) != 4 || got.Args[0] != "--listen="+pod.Status.PodIP+":8080" || got.Args[2] != "--namespace=pods" || got.Args[3] != "--added="+pod.Status.PodIP+" "+config {
			t.Errorf("arguments: %q", got.Args)
		}
		key, ok := strings.CutPrefix(got.File, "keyFile: ")
		if content, err := os.ReadFile(key); !ok || err != nil || string(content) != "the key" {
			t.Errorf("the ConfigMap's file is %q, and what it names %q, %v", got.File, content, err)
		}
		if got.User != "system:serviceaccount:pods:web" {
			t.Errorf("it is %q", got.User)
		}
		for name, want := range map[string]string{"NAMESPACE": "pods", "NODE": pod.Spec.NodeName, "IP": pod.Status.PodIP, "WORD": "from the Secret", "HOSTNAME": pod.Name} {
			if got.Env[name] != want {
				t.Errorf("%s=%q, want %q", name, got.Env[name], want)
			}
		}
		if socket := got.Env["SOCKET"]; !strings.HasPrefix(socket, "unix://"+s.Dir) || !strings.HasSuffix(socket, "/web.sock") {
			t.Errorf("SOCKET=%q", socket)
		}
		if _, leaked := got.Env["GOPATH"]; leaked || len(got.Env) > 14 {
			t.Errorf("the test's own environment is there: %v", got.Env)
		}
	}
}

func (s site) restarts(ctx context.Context, t *testing.T) {
	all, err := s.list(ctx, "app=web")
	must(t, err)
	pod := &all[0]
	if _, err := request(ctx, pod.Status.PodIP+":8080", "/exit"); err == nil {
		t.Error("it answered while it ended")
	}
	restarted := func(n, code int32) func(context.Context) (bool, error) {
		return func(ctx context.Context) (bool, error) {
			err := s.Client.Get(ctx, client.ObjectKeyFromObject(pod), pod)
			c := pod.Status.ContainerStatuses[0]
			return err == nil && lab.PodReady(pod) && c.RestartCount == n && c.LastTerminationState.Terminated.ExitCode == code, err
		}
	}
	must(t, s.WaitFor(ctx, "a restart after exit 3", restarted(1, 3)))
	get(ctx, t, pod.Status.PodIP+":8080", "/unwell")
	must(t, s.WaitFor(ctx, "a restart after a failed probe", restarted(2, endedWell)))
	if message := pod.Status.ContainerStatuses[0].LastTerminationState.Terminated.Message; !strings.Contains(message, "500") {
		t.Errorf("why: %s", message)
	}
}

// endedWell is the exit code of web after SIGTERM: ListenAndServe says it was closed.
const endedWell = 1

func (s site) deletion(ctx context.Context, t *testing.T) {
	all, err := s.list(ctx, "app=web")
	must(t, err)
	pod := all[0]
	ended := filepath.Join(s.Dir, "hosts", pod.Spec.NodeName, "srv/web/ended")
	must(t, os.RemoveAll(ended))
	must(t, s.Client.Delete(ctx, &pod))
	must(t, s.WaitFor(ctx, "another pod", func(ctx context.Context) (bool, error) {
		if err := s.Client.Get(ctx, client.ObjectKeyFromObject(&pod), &corev1.Pod{}); err == nil {
			return false, nil
		}
		return s.pods("app=web", lab.PodReady, 2)(ctx)
	}))
	if content, err := os.ReadFile(ended); err != nil || string(content) != "by SIGTERM" {
		t.Errorf("it ended %q, %v", content, err)
	}
	if _, err := request(ctx, pod.Status.PodIP+":8080", "/"); err == nil {
		t.Error("it still answers")
	}
}

func (s site) waits(ctx context.Context, t *testing.T) {
	for label, want := range map[string][2]string{
		"app=unknown": {"ErrImagePull", "registry.example/unknown"},
		"app=early":   {"CreateContainerConfigError", "init containers"},
	} {
		must(t, s.WaitFor(ctx, label, s.pods(label, func(pod *corev1.Pod) bool {
			return len(pod.Status.ContainerStatuses) == 1 && pod.Status.Phase == corev1.PodPending && pod.Status.ContainerStatuses[0].State.Waiting != nil &&
				pod.Status.ContainerStatuses[0].State.Waiting.Reason == want[0] && strings.Contains(pod.Status.ContainerStatuses[0].State.Waiting.Message, want[1])
		}, 1)))
	}
}

func get(ctx context.Context, t *testing.T, address, path string) string {
	t.Helper()
	body, err := request(ctx, address, path)
	must(t, err)
	return body
}

func request(ctx context.Context, address, path string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return "", err
	}
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), err
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
