package routeros_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
)

func inject(t *testing.T, srv *routeros.Server, f routeros.Fault) *routeros.Injection {
	t.Helper()
	in, err := srv.Inject(f)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// TestFaults: what the client sees, and what the array did, for each point at
// which a command can be lost.
func TestFaults(t *testing.T) {
	const script = `/disk/comment v comment=a; /disk/comment v comment=b; :put done`
	tests := map[string]struct {
		fault   routeros.Fault
		comment string // on the array, in the end
		out     string // seen by the client
		status  int
		outcome routeros.Outcome
		steps   int
	}{
		"before the command":    {routeros.Fault{Kind: routeros.CutBefore}, "", "", -1, routeros.NotRun, 0},
		"received, not run":     {routeros.Fault{Kind: routeros.CutReceived}, "", "", -1, routeros.NotRun, 0},
		"received, runs on":     {routeros.Fault{Kind: routeros.CutReceived, RunOn: true}, "b", "", -1, routeros.Succeeded, 3},
		"before the first step": {routeros.Fault{Kind: routeros.CutAtStep}, "", "", -1, routeros.Interrupted, 0},
		"after one step":        {routeros.Fault{Kind: routeros.CutAtStep, Steps: 1}, "a", "", -1, routeros.Interrupted, 1},
		"after one, runs on":    {routeros.Fault{Kind: routeros.CutAtStep, Steps: 1, RunOn: true}, "b", "", -1, routeros.Succeeded, 3},
		"after all steps":       {routeros.Fault{Kind: routeros.CutAtStep, Steps: 3}, "b", "", -1, routeros.Succeeded, 3},
		"more steps than are":   {routeros.Fault{Kind: routeros.CutAtStep, Steps: 4}, "b", "done\r\n", 0, routeros.Succeeded, 3},
		"before the answer":     {routeros.Fault{Kind: routeros.CutBeforeAnswer}, "b", "", -1, routeros.Succeeded, 3},
		"half an answer":        {routeros.Fault{Kind: routeros.CutMidAnswer}, "b", "don", -1, routeros.Succeeded, 3},
		"made-up answer":        {routeros.Fault{Kind: routeros.Answer, Text: "failure: x", Status: 1}, "", "failure: x\r\n", 1, routeros.NotRun, 0},
		"another command":       {routeros.Fault{Kind: routeros.CutBefore, Pattern: "nothing"}, "b", "done\r\n", 0, routeros.Succeeded, 3},
		"the next but one":      {routeros.Fault{Kind: routeros.CutBefore, Skip: 1}, "b", "done\r\n", 0, routeros.Succeeded, 3},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			srv := started(t, routeros.Options{})
			addVolume(t, srv, "v")
			inject(t, srv, tt.fault)
			out, status := dial(t, srv).run(script)
			if out != tt.out || status != tt.status {
				t.Errorf("client saw %q, %d; want %q, %d", out, status, tt.out, tt.status)
			}
			if err := srv.WaitIdle(ctxOf(t)); err != nil {
				t.Fatal(err)
			}
			d, _ := srv.Disk("v")
			cmd, _ := srv.LastCommand()
			if d.Comment != tt.comment || cmd.Outcome != tt.outcome || len(cmd.Steps) != tt.steps {
				t.Errorf("array: comment %q, %s after %d steps; want %q, %s, %d",
					d.Comment, cmd.Outcome, len(cmd.Steps), tt.comment, tt.outcome, tt.steps)
			}
			// The fault was for one command; the next is answered.
			if out, _ := dial(t, srv).run(`:put [:len [/disk/find]]`); out != "2\r\n" && tt.fault.Skip == 0 {
				t.Errorf("afterwards: %q", out)
			}
		})
	}
}

// TestHeldScript: the connection is cut between two steps and the rest runs
// only when it is released.
func TestHeldScript(t *testing.T) {
	srv := started(t, routeros.Options{})
	addVolume(t, srv, "v")
	in := inject(t, srv, routeros.Fault{Kind: routeros.CutAtStep, Steps: 1, Hold: true})
	if _, status := dial(t, srv).run(`/disk/comment v comment=a; /disk/comment v comment=b`); status != -1 {
		t.Errorf("status %d", status)
	}
	await(t, in.Reached())
	if d, _ := srv.Disk("v"); d.Comment != "a" {
		t.Errorf("comment %q before the release", d.Comment)
	}
	in.Release()
	if err := srv.WaitIdle(ctxOf(t)); err != nil {
		t.Fatal(err)
	}
	if d, _ := srv.Disk("v"); d.Comment != "b" {
		t.Errorf("comment %q after the release", d.Comment)
	}
}

func TestHang(t *testing.T) {
	for kind, comment := range map[routeros.FaultKind]string{routeros.HangBefore: "", routeros.HangAfter: "a"} {
		t.Run(string(kind), func(t *testing.T) {
			srv := started(t, routeros.Options{})
			addVolume(t, srv, "v")
			in := inject(t, srv, routeros.Fault{Kind: kind})
			c := dial(t, srv)
			done := c.goRun(`/disk/comment v comment=a`)
			await(t, in.Reached())
			if d, _ := srv.Disk("v"); d.Comment != comment {
				t.Errorf("comment %q, want %q", d.Comment, comment)
			}
			select {
			case out := <-done:
				t.Errorf("answered %q", out)
			default:
			}
			_ = c.Close()
			await(t, done)
			if err := srv.WaitIdle(ctxOf(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// steppedClock hands out channels that the test closes.
type steppedClock struct{ waits chan chan time.Time }

func (c steppedClock) Now() time.Time { return time.Unix(1_700_000_000, 0) }

func (c steppedClock) After(time.Duration) <-chan time.Time {
	ch := make(chan time.Time)
	c.waits <- ch
	return ch
}

func TestLatency(t *testing.T) {
	clock := steppedClock{make(chan chan time.Time, 10)}
	srv := started(t, routeros.Options{Clock: clock, Settings: routeros.Settings{Latency: time.Hour}})
	done := dial(t, srv).goRun(`:put a`)
	wait := await(t, clock.waits)
	if cmd, _ := srv.LastCommand(); len(cmd.Steps) != 0 {
		t.Error("ran before its time")
	}
	close(wait)
	if out := await(t, done); out != "a\r\n" {
		t.Errorf("%q", out)
	}
}

// TestDroppedChannel: by default the script runs on.
func TestDroppedChannel(t *testing.T) {
	for _, stop := range []bool{false, true} {
		t.Run(fmt.Sprint(stop), func(t *testing.T) {
			srv := started(t, routeros.Options{Settings: routeros.Settings{StopOnDisconnect: stop}})
			addVolume(t, srv, "v")
			in := inject(t, srv, routeros.Fault{Kind: routeros.Pause, Steps: 1})
			c := dial(t, srv)
			done := c.goRun(`/disk/comment v comment=a; /disk/comment v comment=b`)
			await(t, in.Reached())
			_ = c.Close()
			await(t, done)
			want := "a"
			if !stop {
				want = "b"
				in.Release()
			}
			if err := srv.WaitIdle(ctxOf(t)); err != nil {
				t.Fatal(err)
			}
			if d, _ := srv.Disk("v"); d.Comment != want {
				t.Errorf("comment %q, want %q", d.Comment, want)
			}
		})
	}
}

// TestEveryFaultPoint walks a script's steps, as a client's test would.
func TestEveryFaultPoint(t *testing.T) {
	srv := started(t, routeros.Options{})
	addVolume(t, srv, "v")
	const script = `{ :local id [/disk/find where slot="v"]; :if ([:len $id] = 1) do={ /disk/comment $id comment=x; :put ok } }`
	dial(t, srv).run(script)
	cmd, _ := srv.LastCommand()
	for n := range len(cmd.Steps) + 1 {
		must(t, srv, `/disk/comment v comment=""`)
		inject(t, srv, routeros.Fault{Kind: routeros.CutAtStep, Steps: n})
		if out, status := dial(t, srv).run(script); status != -1 {
			t.Errorf("step %d: answered %q", n, out)
		}
		if err := srv.WaitIdle(ctxOf(t)); err != nil {
			t.Fatal(err)
		}
		done := false
		for _, s := range cmd.Steps[:n] {
			done = done || s.Mutates
		}
		if d, _ := srv.Disk("v"); (d.Comment == "x") != done {
			t.Errorf("step %d: comment %q", n, d.Comment)
		}
	}
}

func TestReboot(t *testing.T) {
	rec := &recorder{}
	srv := started(t, routeros.Options{Backend: rec})
	addVolume(t, srv, "v")
	rec.kinds()
	c := dial(t, srv)
	in := inject(t, srv, routeros.Fault{Kind: routeros.Pause, Steps: 1})
	done := c.goRun(`/disk/comment v comment=a; /disk/comment v comment=b`)
	await(t, in.Reached())
	if err := srv.Down(); err != nil {
		t.Fatal(err)
	}
	await(t, done)
	if err := srv.WaitIdle(ctxOf(t)); err != nil {
		t.Fatal(err)
	}
	if d, _ := srv.Disk("v"); d.Comment != "a" {
		t.Errorf("comment %q: a reboot ends scripts", d.Comment)
	}
	if _, err := gossh.Dial("tcp", srv.Addr(), clientConfig(t, srv, "admin")); err == nil {
		t.Error("connected to an array that is down")
	}
	if err := srv.Up(); err != nil {
		t.Fatal(err)
	}
	if out, _ := dial(t, srv).run(`:put [/disk/get v nvme-tcp-export]`); out != "true\r\n" {
		t.Errorf("%q", out)
	}
	if got := rec.kinds(); got != "export-off export-on" {
		t.Errorf("backend was told %q", got)
	}
}

func TestTimedReboot(t *testing.T) {
	clock := steppedClock{make(chan chan time.Time, 10)}
	srv := started(t, routeros.Options{Clock: clock})
	if err := srv.Reboot(time.Minute); err != nil {
		t.Fatal(err)
	}
	close(await(t, clock.waits))
	waitForDial(t, srv)
}

func waitForDial(t *testing.T, srv *routeros.Server) {
	t.Helper()
	for ctx := ctxOf(t); ctx.Err() == nil; {
		c, err := gossh.Dial("tcp", srv.Addr(), clientConfig(t, srv, "admin"))
		if err == nil {
			_ = c.Close()
			return
		}
	}
	t.Fatal("waited too long")
}

// TestRandomCuts: with a seed, the same commands are hit.
func TestRandomCuts(t *testing.T) {
	history := func() string {
		srv := started(t, routeros.Options{Seed: 7, Settings: routeros.Settings{CutProbability: 0.4}})
		var out []string
		for range 30 {
			c := dial(t, srv)
			c.run(`:put a; :put b; :put c`)
			_ = c.Close()
			if err := srv.WaitIdle(ctxOf(t)); err != nil {
				t.Fatal(err)
			}
			cmd, _ := srv.LastCommand()
			out = append(out, string(cmd.Fault))
		}
		return strings.Join(out, ",")
	}
	first := history()
	if second := history(); first != second {
		t.Errorf("%s\n%s", first, second)
	}
	if n := strings.Count(first, "cut"); n < 4 || n > 22 {
		t.Errorf("%d of 30 were cut", n)
	}
}

func TestFaultBookkeeping(t *testing.T) {
	srv := started(t, routeros.Options{})
	if _, err := srv.Inject(routeros.Fault{Kind: "nonsense"}); err == nil {
		t.Error("unknown kinds are accepted")
	}
	if _, err := srv.Inject(routeros.Fault{Kind: routeros.CutBefore, Pattern: "("}); err == nil {
		t.Error("bad patterns are accepted")
	}
	in := inject(t, srv, routeros.Fault{
		Kind: routeros.Answer, Text: "no", Times: -1, Match: func(c string) bool { return strings.HasPrefix(c, ":put a") },
	})
	c := dial(t, srv)
	for _, tt := range []struct{ script, want string }{{`:put a`, "no"}, {`:put b`, "b"}, {`:put a1`, "no"}} {
		if out, _ := c.run(tt.script); out != tt.want+"\r\n" {
			t.Errorf("%s: %q", tt.script, out)
		}
	}
	if in.Hits() != 2 || len(srv.Faults()) != 1 {
		t.Errorf("%d hits, %d faults", in.Hits(), len(srv.Faults()))
	}
	srv.ClearFaults()
	if out, _ := c.run(`:put a`); out != "a\r\n" || len(srv.Faults()) != 0 {
		t.Errorf("after clearing: %q", out)
	}
}

// TestOnStep lets a test change the array between two steps of a script.
func TestOnStep(t *testing.T) {
	srv := started(t, routeros.Options{})
	addVolume(t, srv, "v")
	srv.OnStep(func(_ context.Context, _ routeros.Command, s routeros.Step) {
		if s.Name == "/disk/comment" {
			if _, err := srv.Run(context.Background(), `/disk/remove v`); err != nil {
				t.Error(err)
			}
		}
	})
	out, _ := dial(t, srv).run(`{ :local id [/disk/find slot=v]; /disk/comment $id comment=x }`)
	if out != "no such item (4)\r\n" {
		t.Errorf("%q", out)
	}
}

func TestCloseEndsEverything(t *testing.T) {
	srv := started(t, routeros.Options{})
	inject(t, srv, routeros.Fault{Kind: routeros.Pause})
	inject(t, srv, routeros.Fault{Kind: routeros.HangBefore})
	var ends []<-chan string
	for range 3 {
		ends = append(ends, dial(t, srv).goRun(`:put a; :delay 1h`))
	}
	raw, err := net.Dial("tcp", srv.Addr()) // never speaks
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	waitFor(t, srv, func() bool { return srv.Stats().Running == 3 })
	if err := srv.Close(); err != nil {
		t.Fatal(err)
	}
	for _, e := range ends {
		await(t, e)
	}
	if st := srv.Stats(); st.Running != 0 || st.Active != 0 {
		t.Errorf("left: %+v", st)
	}
	if err := srv.Start(""); err == nil {
		t.Error("a closed server starts again")
	}
}
