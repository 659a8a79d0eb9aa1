package routeros

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros/internal/script"
)

// execute starts a script of :execute in the background. It belongs to no
// connection, so none of the faults hits it: OnStep may hold it, and a reboot ends
// it. What is wrong with it is seen in Jobs only.
func (s *Server) execute(u User, text string) (id string, err error) {
	s.mu.Lock()
	rec := &record{Command{Seq: len(s.jobs) + 1, User: u.Name, Text: text, Started: s.opts.Clock.Now(), Outcome: Running, Job: true}}
	s.jobs = append(s.jobs, rec)
	s.running++
	boot := s.boot
	s.mu.Unlock()
	if !s.spawn(func() { defer s.end(rec); s.job(boot, u, rec) }) {
		s.end(rec)
	}
	return fmt.Sprintf("*%X", rec.Seq), nil
}

func (s *Server) job(ctx context.Context, u User, rec *record) {
	prog, err := script.Parse(rec.Text, s.array.Menus())
	if err != nil {
		s.update(rec, func(c *Command) { c.Outcome, c.Error = Unparsed, err.Error() })
		return
	}
	var out bytes.Buffer
	m := s.machine(&out, s.Settings(), u)
	m.Before = func(ctx context.Context, st Step) error {
		s.announce(ctx, rec, st)
		if err := ctx.Err(); err != nil {
			return err
		}
		s.took(rec, st)
		return nil
	}
	_, err = m.Run(ctx, prog)
	var failure *script.Failure
	s.update(rec, func(c *Command) {
		c.Outcome, c.Output = Succeeded, out.String()
		if err != nil {
			c.Outcome, c.Error = Interrupted, err.Error()
		}
		if errors.As(err, &failure) {
			c.Outcome = Failed
		}
	})
}

// Jobs returns the scripts that ran or run in the background, oldest first.
func (s *Server) Jobs() []Command {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Command, 0, len(s.jobs))
	for _, r := range s.jobs {
		out = append(out, r.snapshot())
	}
	return out
}
