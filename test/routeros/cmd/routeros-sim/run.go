package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	gossh "golang.org/x/crypto/ssh"
)

// ready is the line printed when the array can be reached.
type ready struct {
	SSH     string `json:"ssh"`
	Control string `json:"control,omitempty"`
	HostKey string `json:"hostKey"`
}

// run serves until ctx ends.
func run(ctx context.Context, o *options, out io.Writer) (err error) {
	srv, err := o.server()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, srv.Close()) }()
	if err := srv.Start(o.listen); err != nil {
		return err
	}
	line := ready{SSH: srv.Addr(), HostKey: string(gossh.MarshalAuthorizedKey(srv.HostKey()))}
	failed := make(chan error, 1)
	if o.control != "" {
		l, listenErr := net.Listen("tcp", o.control)
		if listenErr != nil {
			return listenErr
		}
		line.Control = "http://" + l.Addr().String()
		control := &http.Server{Handler: srv.ControlHandler(), ReadHeaderTimeout: 10 * time.Second}
		go func() { failed <- control.Serve(l) }()
		defer func() { err = errors.Join(err, control.Close()) }()
	}
	if err := json.NewEncoder(out).Encode(line); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}
