package doctor

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
	"git.srvlab.io/whiskey/rds-csi-operator/rds/routeros"
)

const (
	// Prefix begins the names of all that the doctor makes.
	Prefix = "rds-doctor-"

	checkTimeout   = 3 * time.Minute
	cleanupTimeout = time.Minute
)

// Options say what may be done.
type Options struct {
	Scratch bool
	// Host, if not nil, is this machine, which may connect to the scratch volume.
	Host Host
	Now  func() time.Time // nil: time.Now
}

// patient is the array under examination.
type patient struct {
	config routeros.Config
	array  *routeros.Array
	second *routeros.Array // another connection to the same
	host   Host
	now    func() time.Time

	slot   string     // of the scratch volume
	volume rds.Volume // as last read; zero until it was made
}

// Examine runs all checks on one array. The error is nil unless the array could not
// be examined at all, or something that was made could not be removed; it says what.
func Examine(ctx context.Context, config routeros.Config, o Options) (Report, error) {
	p := &patient{config: config, host: o.Host, now: o.Now}
	if p.now == nil {
		p.now = time.Now
	}
	report := Report{Array: config.Name, Address: config.Address, At: p.now().UTC().Truncate(time.Second)}
	var err error
	if p.array, err = routeros.New(config); err != nil {
		return report, err
	}
	defer func() { _ = p.array.Close() }() // nothing is kept in a connection
	if p.second, err = routeros.New(config); err != nil {
		return report, err
	}
	defer func() { _ = p.second.Close() }()
	p.config = p.array.Config()
	if err := p.reach(ctx, &report); err != nil {
		return report, err
	}
	if o.Scratch {
		if err := p.refuseLeftovers(ctx); err != nil {
			return report, err
		}
		p.slot = newSlot()
	}
	for _, check := range Checks() {
		report.Findings = append(report.Findings, p.find(ctx, check))
	}
	if p.slot != "" {
		err = p.cleanUp(ctx)
	}
	return report, errors.Join(err, context.Cause(ctx))
}

// find runs one check, if it may be run.
func (p *patient) find(ctx context.Context, c Check) Finding {
	f := Finding{Check: c.Name, Assumption: c.Assumption, Promise: c.Promise}
	var out outcome
	switch {
	case ctx.Err() != nil:
		out = outcome{Skipped, "the examination was interrupted"}
	case c.Level >= Scratch && p.slot == "":
		out = outcome{Skipped, "needs --scratch: it makes and removes a small volume"}
	case c.Level == OnNode && p.host == nil:
		out = outcome{Skipped, "needs --node, on a node of the cluster"}
	default:
		checking, cancel := context.WithTimeout(ctx, checkTimeout)
		defer cancel()
		out = c.run(checking, p)
	}
	f.Verdict, f.Detail = out.verdict, out.detail
	if f.Verdict == Fail {
		f.Advice = c.Advice
	}
	return f
}

// reach asks for the version, which any array that can be examined answers.
func (p *patient) reach(ctx context.Context, report *Report) error {
	text, err := p.text(ctx, "/system/resource/get version")
	report.Version = text
	return err
}

// refuseLeftovers keeps an examination from touching anything that it did not make.
func (p *patient) refuseLeftovers(ctx context.Context) error {
	for what, command := range map[string]string{
		"disks": `:len [/disk/find where slot~"^` + Prefix + `"]`,
		"files": `:len [/file/find where name~` + routeros.Quote(regexpOf(p.config.BasePath+"/"+Prefix)) + `]`,
	} {
		n, err := p.text(ctx, command)
		if err != nil {
			return err
		}
		if n != "0" {
			return fmt.Errorf("%s %s on array %s begin with %q: an earlier examination was cut off, or another is under way; remove them by hand first", n, what, p.config.Name, Prefix)
		}
	}
	return nil
}

func newSlot() string {
	random := make([]byte, 4)
	_, _ = rand.Read(random) // never fails
	return Prefix + hex.EncodeToString(random)
}

// cleanUp removes the scratch volume, also when ctx has ended.
func (p *patient) cleanUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	var hostErr error
	if p.host != nil && p.volume.Slot != "" {
		hostErr = p.host.Release(ctx, p.slot)
	}
	err := p.remove(ctx)
	if err == nil {
		return hostErr
	}
	return errors.Join(hostErr, fmt.Errorf("what was made is still there; remove it by hand: disk %s and the files %s/%s.*: %w", p.slot, p.config.BasePath, p.slot, err))
}

// remove takes the scratch volume away with its files. Its comment may be anything by
// now, so it goes by its name, which nothing else bears.
func (p *patient) remove(ctx context.Context) error {
	disk := "[/disk/find where slot=" + routeros.Quote(p.slot) + "]"
	_, err := p.array.Probe(ctx, true,
		":if ([:len "+disk+"]=1) do={/disk/set "+disk+" nvme-tcp-export=no;/disk/remove "+disk+"}")
	if err != nil {
		return err
	}
	// Without a disk a deletion is the clean-up of the slot's files.
	return p.array.Delete(ctx, p.slot)
}

// text shows what a command gives and reads it as text.
func (p *patient) text(ctx context.Context, command string) (string, error) {
	values, err := p.array.Probe(ctx, false, routeros.Show(command))
	if err != nil {
		return "", err
	}
	if len(values) != 1 {
		return "", fmt.Errorf("the array showed %d values instead of 1", len(values))
	}
	return decodeText(values[0])
}

func regexpOf(prefix string) string { return "^" + strings.ReplaceAll(prefix, ".", `\.`) }
