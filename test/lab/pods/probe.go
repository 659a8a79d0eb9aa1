package pods

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// probe looks at one aspect of a container, and counts as kubelet does.
type probe struct {
	spec  *corev1.Probe
	check func(context.Context) error
	eager bool // until it succeeds, look whenever asked

	next      time.Time
	successes int32
	failures  int32
	last      error
}

// newProbe prepares a probe of a container; nil without one.
func newProbe(spec *corev1.Probe, c *corev1.Container, ip string, m mounts, eager bool) (*probe, error) {
	if spec == nil {
		return nil, nil
	}
	p := &probe{spec: spec, eager: eager}
	switch {
	case spec.HTTPGet != nil:
		port, err := portOf(spec.HTTPGet.Port, c)
		if err != nil {
			return nil, err
		}
		scheme := strings.ToLower(cmp.Or(string(spec.HTTPGet.Scheme), "HTTP"))
		p.check = httpCheck(scheme+"://"+net.JoinHostPort(ip, port)+"/"+strings.TrimPrefix(spec.HTTPGet.Path, "/"), spec.HTTPGet.HTTPHeaders)
	case spec.TCPSocket != nil:
		port, err := portOf(spec.TCPSocket.Port, c)
		if err != nil {
			return nil, err
		}
		p.check = tcpCheck(net.JoinHostPort(ip, port))
	case spec.Exec != nil:
		p.check = execCheck(spec.Exec.Command, m)
	default:
		return nil, fmt.Errorf("container %s: this kind of probe is not supported here", c.Name)
	}
	return p, nil
}

func portOf(port intstr.IntOrString, c *corev1.Container) (string, error) {
	if port.Type == intstr.Int {
		return port.String(), nil
	}
	for _, p := range c.Ports {
		if p.Name == port.StrVal {
			return fmt.Sprint(p.ContainerPort), nil
		}
	}
	return "", fmt.Errorf("container %s has no port named %s", c.Name, port.StrVal)
}

// probeClient checks no certificate, as kubelet does not.
var probeClient = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func httpCheck(url string, headers []corev1.HTTPHeader) func(context.Context) error {
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		for _, h := range headers {
			request.Header.Add(h.Name, h.Value)
		}
		response, err := probeClient.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode < 200 || response.StatusCode >= 400 {
			return fmt.Errorf("%s: %s", url, response.Status)
		}
		return nil
	}
}

func tcpCheck(address string) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

func execCheck(command []string, m mounts) func(context.Context) error {
	local := make([]string, len(command))
	for i, word := range command {
		local[i] = m.rewrite(word)
	}
	return func(ctx context.Context) error {
		out, err := exec.CommandContext(ctx, local[0], local[1:]...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", local[0], err, out)
		}
		return nil
	}
}

// start forgets what was, for a container that has just started.
func (p *probe) start(now time.Time) {
	if p == nil {
		return
	}
	p.successes, p.failures, p.last = 0, 0, nil
	p.next = now
	if !p.eager {
		p.next = now.Add(time.Duration(p.spec.InitialDelaySeconds) * time.Second)
	}
}

// look probes if it is time.
func (p *probe) look(ctx context.Context, now time.Time) {
	if p == nil || now.Before(p.next) && (!p.eager || p.successes > 0) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(max(p.spec.TimeoutSeconds, 1))*time.Second)
	defer cancel()
	p.next = now.Add(time.Duration(cmp.Or(p.spec.PeriodSeconds, 10)) * time.Second)
	if p.last = p.check(ctx); p.last != nil {
		p.successes, p.failures = 0, p.failures+1
		return
	}
	p.successes, p.failures = p.successes+1, 0
}

func (p *probe) threshold() int32 { return cmp.Or(p.spec.FailureThreshold, 3) }

// passed tells whether it succeeded often enough, and has not failed too often since.
func (p *probe) passed(before bool) bool {
	switch {
	case p == nil, p.successes >= max(p.spec.SuccessThreshold, 1):
		return true
	case p.failures >= p.threshold():
		return false
	}
	return before
}

// failed tells whether it failed too often.
func (p *probe) failed() bool { return p != nil && p.failures >= p.threshold() }
