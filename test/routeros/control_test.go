package routeros_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
)

// call does one request and decodes the answer.
func call(t *testing.T, url, method, path string, in, out any) int {
	t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(ctxOf(t), method, url+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if out != nil {
		if err := json.NewDecoder(res.Body).Decode(out); err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
	}
	return res.StatusCode
}

func TestControl(t *testing.T) {
	srv := started(t, routeros.Options{})
	ctl := httptest.NewServer(srv.ControlHandler())
	defer ctl.Close()
	type obj = map[string]any
	steps := []struct {
		method, path string
		in           any
		status       int
	}{
		{"POST", "/pools", obj{"name": "bt", "fs": "btrfs", "size": 1 << 40}, 200},
		{"POST", "/pools", obj{"name": "bt", "size": 1}, 400},
		{"POST", "/pools", obj{"nme": "x"}, 400},
		{"POST", "/files", obj{"name": "bt/d", "type": "directory"}, 200},
		{"POST", "/files", obj{"name": "bt/d/x.img", "size": 1 << 30}, 200},
		{"POST", "/disks", obj{"type": "file", "slot": "x", "file-path": "/bt/d/x.img"}, 200},
		{"POST", "/run", `/disk/set x nvme-tcp-export=yes`, 200},
		{"POST", "/run", `/disk/set y nvme-tcp-export=yes`, 400},
		{"POST", "/pools/bt/fill", nil, 200},
		{"POST", "/pools/no/fill", nil, 400},
		{"POST", "/pools/bt/used?bytes=0", nil, 200},
		{"PATCH", "/settings", obj{"exitStatus": "one", "json": obj{"FloatNumbers": true}}, 200},
		{"PATCH", "/settings", obj{"latency": "fast"}, 400},
		{"POST", "/faults", obj{"kind": "answer", "text": "failure: injected", "pattern": "find"}, 200},
		{"POST", "/faults", obj{"kind": "what"}, 400},
		{"POST", "/faults/9/release", nil, 400},
		{"POST", "/down", nil, 200},
		{"POST", "/up", nil, 200},
		{"POST", "/reboot?pause=soon", nil, 400},
		{"POST", "/cut", nil, 200},
		{"GET", "/nothing", nil, 404},
	}
	for _, s := range steps {
		if got := call(t, ctl.URL, s.method, s.path, s.in, nil); got != s.status {
			t.Errorf("%s %s: %d, want %d", s.method, s.path, got, s.status)
		}
	}
	var state struct {
		Disks   []routeros.Disk
		Pools   []routeros.Pool
		Exports []routeros.Event
	}
	call(t, ctl.URL, "GET", "/state", nil, &state)
	if len(state.Disks) != 3 || len(state.Pools) != 2 || len(state.Exports) != 1 || state.Exports[0].Slot != "x" {
		t.Errorf("%+v", state)
	}
	out, status := dial(t, srv).run(`:put [/disk/find]`)
	if out != "failure: injected\r\n" || status != 0 {
		t.Errorf("%q, %d", out, status)
	}
	if out, status := dial(t, srv).run(`:put [:serialize to=json value={1}]; :error x`); out != "[1.000000]\r\nx\r\n" || status != 1 {
		t.Errorf("%q, %d", out, status)
	}
	var stats routeros.Stats
	call(t, ctl.URL, "GET", "/stats", nil, &stats)
	var log []routeros.Command
	call(t, ctl.URL, "GET", "/log", nil, &log)
	if stats.Commands != 2 || len(log) != 2 || log[1].Outcome != routeros.Failed {
		t.Errorf("%+v %+v", stats, log)
	}
	var faults []struct{ ID, Hits int }
	call(t, ctl.URL, "GET", "/faults", nil, &faults)
	if len(faults) != 1 || faults[0].Hits != 1 {
		t.Errorf("%+v", faults)
	}
	call(t, ctl.URL, "DELETE", "/faults", nil, nil)
	var before, after struct{ Fingerprint string }
	call(t, ctl.URL, "GET", "/host-key", nil, &before)
	call(t, ctl.URL, "POST", "/host-key", nil, &after)
	if before.Fingerprint == after.Fingerprint || len(srv.Faults()) != 0 {
		t.Error("nothing changed")
	}
}
