package main

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"

	"git.srvlab.io/whiskey/rds-csi-operator/test/dataplane/wire"
)

func readFile(w http.ResponseWriter, r *http.Request) {
	file, err := os.Open(r.URL.Query().Get("path"))
	if err != nil {
		status := http.StatusInternalServerError
		if errors.Is(err, fs.ErrNotExist) {
			status = http.StatusNotFound
		}
		http.Error(w, err.Error(), status)
		return
	}
	defer file.Close()
	// Files of sysfs and procfs tell no size, so all is read before it is sent.
	content, err := io.ReadAll(file)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(content)
}

func writeFile(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Query().Get("path")
	mode, err := strconv.ParseUint(r.URL.Query().Get("mode"), 8, 32)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o755)
	}
	var content []byte
	if err == nil {
		content, err = io.ReadAll(r.Body)
	}
	if err == nil {
		// One write: the kernel's attribute files take nothing less.
		err = os.WriteFile(path, content, fs.FileMode(mode))
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// forward joins the caller with a socket of this guest.
func forward(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	inside, err := net.Dial(query.Get("network"), query.Get("address"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer inside.Close()
	outside, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer outside.Close()
	_, err = io.WriteString(outside, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+wire.Forward+"\r\n\r\n")
	if err != nil {
		return
	}
	done := make(chan struct{}, 2)
	go func() { _, _ = io.Copy(inside, buffered); done <- struct{}{} }()
	go func() { _, _ = io.Copy(outside, inside); done <- struct{}{} }()
	<-done // one end is gone: so is the connection
}
