package routeros

import (
	"bytes"
	"context"
	"errors"

	"github.com/gliderlabs/ssh"
	gossh "golang.org/x/crypto/ssh"

	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros/internal/render"
	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros/internal/script"
)

// session is one channel: it takes one command.
type session struct {
	server *Server
	conn   *conn
	user   User
	ch     gossh.Channel
	// closed ends when the client closes the channel or the connection drops.
	closed context.Context
	pty    bool
	// status is sent with the answer.
	status int
}

// channel serves one SSH session channel until it is closed.
func (s *Server) channel(_ *ssh.Server, sc *gossh.ServerConn, newCh gossh.NewChannel, ctx ssh.Context) {
	c, ok := ctx.Value(connKey{}).(*conn)
	if !ok {
		_ = newCh.Reject(gossh.ConnectionFailed, "no connection")
		return
	}
	done := make(chan struct{})
	if !s.spawn(func() { <-done }) { // Close waits for this goroutine
		_ = newCh.Reject(gossh.ResourceShortage, "shutting down")
		return
	}
	defer close(done)
	ch, reqs, err := newCh.Accept()
	if err != nil {
		return
	}
	closed, cancel := context.WithCancel(s.ctx)
	defer cancel()
	sess := &session{server: s, conn: c, user: s.user(sc.User()), ch: ch, closed: closed}
	started := false
	for req := range reqs { // ends when the channel is closed
		command, answer := "", false
		switch req.Type {
		case "exec":
			var payload struct{ Command string }
			if err := gossh.Unmarshal(req.Payload, &payload); err == nil && !started {
				started, answer, command = true, true, payload.Command
			}
		case "pty-req":
			answer = !started
			if answer {
				sess.pty = true
			}
		case "shell", "env":
			answer = true // a shell waits for input that is never read
		}
		if req.WantReply {
			_ = req.Reply(answer, nil) // a dead connection ends the loop
		}
		if req.Type == "exec" && answer {
			// Not before the reply, which must not follow the channel's end.
			s.spawn(func() { sess.exec(command) })
		}
	}
}

// exec takes a command through its faults, runs it and answers.
func (x *session) exec(command string) {
	s := x.server
	rec := s.begin(x.conn.id, x.user.Name, command)
	defer s.end(rec)
	fault := s.take(command)
	if fault != nil {
		s.update(rec, func(c *Command) { c.Fault = fault.Fault.Kind })
	} else {
		fault = &Injection{reached: make(chan struct{}), released: make(chan struct{})}
	}
	if !x.before(rec, fault) {
		return
	}
	s.mu.Lock()
	ctx := s.boot
	set := s.settings
	s.mu.Unlock()
	if set.StopOnDisconnect {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(x.closed, cancel)()
	}
	if err := x.delay(ctx, set, fault.Fault); err != nil {
		s.update(rec, func(c *Command) { c.Outcome = NotRun })
		return
	}
	out, err := x.run(ctx, rec, fault, command, set)
	if err != nil { // no answer: incomplete input hangs, a stopped script is silent
		var incomplete *script.IncompleteError
		if errors.As(err, &incomplete) {
			<-x.closed.Done()
		}
		return
	}
	x.answer(fault, out)
}

// before applies the faults that come before the script runs; false means
// that it does not.
func (x *session) before(rec *record, in *Injection) bool {
	notRun := func() bool {
		x.server.update(rec, func(c *Command) { c.Outcome = NotRun })
		return false
	}
	switch {
	case x.pty || in.Fault.Kind == HangBefore:
		in.reach()
		<-x.closed.Done()
		return notRun()
	case in.Fault.Kind == CutBefore, in.Fault.Kind == CutReceived:
		in.reach()
		x.conn.cut()
		if in.Fault.Kind == CutBefore || !in.Fault.RunOn {
			return notRun()
		}
	case in.Fault.Kind == Answer:
		in.reach()
		x.status = in.Fault.Status
		x.send(in.Fault.Text + "\r\n")
		return notRun()
	}
	return true
}

func (x *session) delay(ctx context.Context, set Settings, f Fault) error {
	wait := set.Latency
	if f.Kind == Delay {
		wait += f.Delay
	}
	if wait <= 0 {
		return nil
	}
	select {
	case <-x.server.opts.Clock.After(wait):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// errStopped ends a script between two commands.
var errStopped = errors.New("stopped by a fault")

// run parses and executes. An error means that there is no answer.
func (x *session) run(ctx context.Context, rec *record, in *Injection, command string, set Settings) (string, error) {
	s := x.server
	prog, err := script.Parse(command, s.array.Menus())
	if err != nil {
		outcome := Unparsed
		var incomplete *script.IncompleteError
		if errors.As(err, &incomplete) {
			outcome = Incomplete
		}
		s.update(rec, func(c *Command) { c.Outcome, c.Error = outcome, err.Error() })
		if outcome == Incomplete {
			return "", err
		}
		x.status = s.failureStatus(set)
		return err.Error() + "\r\n", nil
	}
	if set.WholeScripts {
		s.whole.Lock()
		defer s.whole.Unlock()
	}
	var out bytes.Buffer
	m := s.machine(&out, set, x.user)
	m.Before = func(ctx context.Context, st Step) error { return x.step(ctx, rec, in, st) }
	_, err = m.Run(ctx, prog)
	var failure *script.Failure
	switch {
	case errors.As(err, &failure):
		out.WriteString(failure.Msg + "\r\n")
		x.status = s.failureStatus(set)
		s.update(rec, func(c *Command) { c.Outcome, c.Error, c.Output = Failed, failure.Msg, out.String() })
	case err != nil:
		s.update(rec, func(c *Command) { c.Outcome, c.Error, c.Output = Interrupted, err.Error(), out.String() })
		return "", err
	default:
		s.update(rec, func(c *Command) { c.Outcome, c.Output = Succeeded, out.String() })
	}
	if in.Fault.Kind == CutAtStep && m.Steps() == in.Fault.Steps {
		in.reach()
		x.conn.cut()
	}
	return out.String(), nil
}

func (s *Server) machine(out *bytes.Buffer, set Settings, u User) *script.Machine {
	m := &script.Machine{
		Host: s.array.NewConsole(u.may("read"), u.may("write")), Out: out, Globals: s.array.Globals(),
		JSON: set.JSON, Locate: set.LocateErrors, After: s.opts.Clock.After,
	}
	m.Execute = func(text string) (string, error) { return s.execute(u, text) }
	if set.WrapPut {
		m.Format = func(text string) string { return render.Wrap(text, set.Width) }
	}
	return m
}

// step is called before each command of the script.
func (x *session) step(ctx context.Context, rec *record, in *Injection, st Step) error {
	s := x.server
	s.announce(ctx, rec, st)
	if err := x.atStep(ctx, in, st.Index); err != nil {
		return err
	}
	s.took(rec, st)
	return nil
}

// announce tells a test that a step comes.
func (s *Server) announce(ctx context.Context, rec *record, st Step) {
	s.mu.Lock()
	hook, c := s.onStep, rec.snapshot()
	s.mu.Unlock()
	if hook != nil {
		hook(ctx, c, st)
	}
}

// took takes a step down.
func (s *Server) took(rec *record, st Step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec.Steps = append(rec.Steps, st)
	s.stats.Steps++
}

func (x *session) atStep(ctx context.Context, in *Injection, index int) error {
	f := in.Fault
	if index != f.Steps {
		return nil
	}
	switch f.Kind {
	case Pause:
		in.reach()
		return in.wait(ctx)
	case CutAtStep:
		x.conn.cut()
		in.reach()
		switch {
		case f.Hold:
			return in.wait(ctx)
		case !f.RunOn:
			return errStopped
		}
	}
	return nil
}

// answer applies the faults that come after the script has run.
func (x *session) answer(in *Injection, out string) {
	switch in.Fault.Kind {
	case CutBeforeAnswer:
		x.conn.cut()
		in.reach()
	case CutMidAnswer:
		_, _ = x.ch.Write([]byte(out[:len(out)/2])) // cut anyway
		x.conn.cut()
		in.reach()
	case HangAfter:
		in.reach()
		<-x.closed.Done()
	default:
		in.reach()
		x.send(out)
	}
}

// send writes the answer and ends the channel. A client that has gone misses it.
func (x *session) send(out string) {
	_, err := x.ch.Write([]byte(out))
	if err == nil {
		_, err = x.ch.SendRequest("exit-status", false, gossh.Marshal(struct{ Status uint32 }{uint32(x.status)}))
	}
	_ = errors.Join(err, x.ch.Close())
}

// failureStatus is the exit status of the next failed command.
func (s *Server) failureStatus(set Settings) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures++
	switch set.ExitStatus {
	case ExitZero:
		return 0
	case ExitOne:
		return 1
	}
	return (s.failures + 1) % 2
}

// Run executes a script as a user who may do everything, without SSH, faults
// or log. The error is a parse error, a failure in RouterOS's words, or ctx's.
func (s *Server) Run(ctx context.Context, text string) (output string, err error) {
	prog, err := script.Parse(text, s.array.Menus())
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	m := s.machine(&out, s.Settings(), User{Policies: []string{"read", "write"}})
	_, err = m.Run(ctx, prog)
	return out.String(), err
}
