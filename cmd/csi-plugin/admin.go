package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/client-go/rest"
	certutil "k8s.io/client-go/util/cert"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
)

// serveAdmin serves metrics and health until stop is called. Healthy is who runs;
// ready is who serves CSI. Kubelet, whose probes carry no token, may always ask for
// these two.
func serveAdmin(log logr.Logger, o Options, registry *prometheus.Registry, ready func() bool) (stop func(), err error) {
	if o.MetricsAddress == "" {
		return func() {}, nil
	}
	metrics := promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	var certificate *tls.Config
	if o.MetricsSecure {
		if metrics, err = allowed(log, o, metrics); err != nil {
			return nil, err
		}
		if certificate, err = selfSigned(); err != nil {
			return nil, err
		}
	}
	listener, err := net.Listen("tcp", o.MetricsAddress)
	if err != nil {
		return nil, fmt.Errorf("serve metrics: %w", err)
	}
	if certificate != nil {
		listener = tls.NewListener(listener, certificate)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !ready() {
			http.Error(w, "not serving CSI", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error(err, "metrics and health are no longer served")
		}
	}()
	return func() { _ = server.Close() }, nil
}

// allowed lets those get the metrics whose token the API server knows and whom RBAC
// allows to.
func allowed(log logr.Logger, o Options, metrics http.Handler) (http.Handler, error) {
	config, err := clientConfig(o)
	if err != nil {
		return nil, err
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("configure the Kubernetes client: %w", err)
	}
	filter, err := filters.WithAuthenticationAndAuthorization(config, client)
	if err != nil {
		return nil, fmt.Errorf("protect the metrics: %w", err)
	}
	return filter(log.WithName("metrics"), metrics)
}

// selfSigned is a certificate of this process alone. It keeps tokens from being read
// on the way; who scrapes does not verify it, as with the operator's.
func selfSigned() (*tls.Config, error) {
	cert, key, err := certutil.GenerateSelfSignedCertKeyWithFixtures("localhost", []net.IP{{127, 0, 0, 1}}, nil, "")
	if err != nil {
		return nil, fmt.Errorf("make a certificate for the metrics: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate for the metrics: %w", err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}, nil
}
