package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"git.srvlab.io/whiskey/rds-csi-operator/rds/doctor"
	arrays "git.srvlab.io/whiskey/rds-csi-operator/rds/routeros"
	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
)

// TestDoctor: the whole command, on an array as it should be and on others.
func TestDoctor(t *testing.T) {
	array := simulator(t)
	array.Configure(func(s *routeros.Settings) { s.WholeScripts = true })
	file := "--arrays-file=" + writeArrays(t, array.Addr())
	for name, tc := range map[string]struct {
		args []string
		code int
		says string
	}{
		"healthy":                    {args: []string{file, "--scratch"}, code: doctorHealthy, says: "20 passed, 0 failed, 0 unknown, 5 skipped"},
		"read only":                  {args: []string{file}, code: doctorHealthy, says: "11 passed, 0 failed, 0 unknown, 14 skipped"},
		"another array":              {args: []string{file, "--array=other"}, code: doctorUnable, says: `lists no array "other"`},
		"a node without a volume":    {args: []string{file, "--node"}, code: doctorUnable, says: "--node needs --scratch"},
		"another output":             {args: []string{file, "--output=xml"}, code: doctorUnable, says: "text or json"},
		"an argument":                {args: []string{file, "now"}, code: doctorUnable, says: `unexpected argument "now"`},
		"an array that is not there": {args: []string{"--arrays-file=" + writeArrays(t, "127.0.0.1:1")}, code: doctorUnable, says: "unreachable"},
		"help":                       {args: []string{"--help"}, code: doctorHealthy, says: "Without --scratch it changes nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if code := runDoctor(t.Context(), tc.args, &out, &out); code != tc.code || !strings.Contains(out.String(), tc.says) {
				t.Errorf("exit code %d, want %d, and %q in\n%s", code, tc.code, tc.says, out.String())
			}
		})
	}
	if n := len(array.Disks()); n != 1 {
		t.Errorf("%d disks are left, of which the pool is one", n)
	}
}

// TestDoctorHost: what nodes take for the array's addresses the doctor takes, too.
func TestDoctorHost(t *testing.T) {
	lookup := func(_ context.Context, host string) ([]netip.Addr, error) {
		if host != "rds.example.org" {
			return nil, errors.New("no such host")
		}
		return []netip.Addr{netip.MustParseAddr("192.0.2.7")}, nil
	}
	for name, tc := range map[string]struct {
		addresses []string
		want      string // the portals, or the error's words
	}{
		"addresses":       {[]string{"192.0.2.1", "fd00::1"}, "192.0.2.1 port 4420, fd00::1 port 4420"},
		"a name":          {[]string{"rds.example.org", "192.0.2.1"}, "192.0.2.7 port 4420, 192.0.2.1 port 4420"},
		"an unknown name": {[]string{"other.example.org"}, "nvmeAddresses: no connection to the array: look up other.example.org: no such host"},
		"none":            {nil, "arrays.yaml names no nvmeAddresses to connect to"},
	} {
		t.Run(name, func(t *testing.T) {
			h, err := newDoctorHost(t.Context(), arrays.Config{NVMeAddresses: tc.addresses, NVMePort: 4420}, lookup)
			got := fmt.Sprint(err)
			if err == nil {
				words := make([]string, len(h.portals))
				for i, p := range h.portals {
					words[i] = p.String()
				}
				got = strings.Join(words, ", ")
			}
			if got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func TestDoctorTellsPrograms(t *testing.T) {
	array := simulator(t)
	array.Configure(func(s *routeros.Settings) { s.Version = "7.20 (stable)" })
	var out, errs bytes.Buffer
	if code := runDoctor(t.Context(), []string{"--arrays-file=" + writeArrays(t, array.Addr()), "--output=json"}, &out, &errs); code != doctorFailed {
		t.Errorf("exit code %d: %s", code, errs.String())
	}
	var report doctor.Report
	if err := json.Unmarshal(out.Bytes(), &report); err != nil {
		t.Fatal(err)
	}
	if report.Version != "7.20 (stable)" || report.Findings[0].Verdict != doctor.Fail || report.Findings[0].Advice == "" {
		t.Errorf("%+v", report)
	}
}

// TestDoctorIsInterrupted: Ctrl-C while its volume is there leaves nothing of it.
func TestDoctorIsInterrupted(t *testing.T) {
	array := simulator(t)
	made := make(chan struct{})
	var once sync.Once
	array.OnStep(func(_ context.Context, c routeros.Command, _ routeros.Step) {
		if strings.Contains(c.Text, "rds1 g100 ") { // some checks after the creation
			once.Do(func() { close(made) })
		}
	})
	doctor := exec.Command(os.Args[0], "doctor", "--arrays-file="+writeArrays(t, array.Addr()), "--scratch")
	doctor.Env = append(os.Environ(), asPlugin+"=1")
	var said bytes.Buffer
	doctor.Stdout, doctor.Stderr = &said, &said
	if err := doctor.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = doctor.Wait() // how it ended is in ProcessState
		close(ended)
	}()
	select {
	case <-made:
	case <-ended:
		t.Fatalf("it ended before:\n%s", &said)
	}
	if err := doctor.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	<-ended
	out := said.String()
	if code := doctor.ProcessState.ExitCode(); code != doctorUnable || !strings.Contains(out, "the examination was interrupted") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	if err := array.WaitIdle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if disks, files := len(array.Disks()), len(array.Files()); disks != 1 || files > 2 {
		t.Errorf("%d disks and %d files are left, the pool and its directories aside", disks-1, files)
	}
}
