package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
	"git.srvlab.io/whiskey/rds-csi-operator/rds/routeros"
)

// answerSize is what some 500 volumes take in a view.
const answerSize = 256 << 10

// readChecks change nothing.
func readChecks() []Check {
	return []Check{
		{Name: "version and pool", run: viewed, Level: ReadOnly,
			Assumption: "RouterOS is 7.21 or newer, and basePath begins with the mount point of a pool that shows its size and free space exactly",
			Promise:    "everything: older releases cannot name an export, and without a pool nothing can be made",
			Advice:     "update RouterOS, or correct basePath in arrays.yaml"},
		{Name: "base directory", run: baseDirectory, Level: ReadOnly,
			Assumption: "the directory basePath is there",
			Promise:    "volumes can be made",
			Advice:     "make the directory on the array: /file/add type=directory name=<basePath>"},
		{Name: "policies", run: policies, Level: ReadOnly,
			Assumption: "the user's policies ssh, read, write and test suffice for changes",
			Promise:    "the controller can change anything; the operator's user needs ssh and read only and fails here rightly",
			Advice:     "give the user's group the policies ssh, read, write and test (/user/group)"},
		{Name: "JSON of /disk", run: typedDisks, Level: ReadOnly,
			Assumption: ":serialize of /disk/print detail as-value gives typed JSON",
			Promise:    "whatever is read from the array: it is the transport of every answer",
			Advice:     "report the array's version and this line; nothing else here can be trusted"},
		{Name: "quoting", run: quoting, Level: ReadOnly,
			Assumption: "a quoted text reads back as exactly its bytes",
			Promise:    "no name or comment is ever taken for a command",
			Advice:     "do not use this array; report its version and this line"},
		{Name: "wrapping", run: wrapping, Level: ReadOnly,
			Assumption: "removing CR and LF undoes whatever the console does to long lines",
			Promise:    "long names and comments are read as they are",
			Advice:     "report the array's version and this line"},
		{Name: "length of a command", run: longCommand, Level: ReadOnly,
			Assumption: "a command of 4 KiB is carried out whole",
			Promise:    "changes of volumes with long names and of both nodes are one command",
			Advice:     "report the array's version and this line"},
		{Name: "length of an answer", run: longAnswer, Level: ReadOnly,
			Assumption: "an answer of 256 KiB arrives whole, as that about some 500 volumes",
			Promise:    "listings, capacities and the operator's view on arrays with many volumes",
			Advice:     "use several base paths as several arrays, with fewer volumes each"},
		{Name: "failures", run: failures, Level: ReadOnly,
			Assumption: ":onerror catches a failure and gives its words",
			Promise:    "no failure is taken for success, whatever the exit status says",
			Advice:     "do not use this array; report its version and this line"},
		{Name: "parallel commands", run: parallel, Level: ReadOnly,
			Assumption: "as many commands as maxChannels at once on one connection are each answered with their own answer",
			Promise:    "requests do not wait for one another",
			Advice:     "lower maxChannels in arrays.yaml, to 1 if need be"},
		{Name: "unset comment", run: unsetComment, Level: ReadOnly,
			Assumption: `a disk without a comment is found by (comment="" or !comment)`,
			Promise:    "volumes of another plugin, and ones whose comment was erased, can be taken over",
			Advice:     "give such volumes any comment before they are used"},
	}
}

func viewed(ctx context.Context, p *patient) outcome {
	view, err := p.array.View(ctx)
	if err != nil {
		return broke(err)
	}
	return pass("%s; pool %s (%s): %d bytes, %d free; %d volumes below %s", view.Version, view.Pool.MountPoint, view.Pool.FS, view.Pool.Size, view.Pool.Free, len(view.Volumes), p.config.BasePath)
}

func baseDirectory(ctx context.Context, p *patient) outcome {
	if p.config.BasePath == strings.Split(p.config.BasePath, "/")[0] {
		return pass("%s is the pool itself", p.config.BasePath)
	}
	n, err := p.text(ctx, ":len [/file/find where name="+routeros.Quote(p.config.BasePath)+"]")
	if err != nil {
		return broke(err)
	}
	if n != "1" {
		return fail("/file has %s items of the name %s", n, p.config.BasePath)
	}
	return pass("%s", p.config.BasePath)
}

// policies asks for a change of nothing: no disk bears that name, so only the right to
// change is tried.
func policies(ctx context.Context, p *patient) outcome {
	_, err := p.array.Probe(ctx, false, "/disk/set [/disk/find where slot="+routeros.Quote(newSlot())+`] comment=""`)
	if err != nil {
		return broke(err)
	}
	return pass("a change that meets no disk is allowed")
}

func typedDisks(ctx context.Context, p *patient) outcome {
	values, err := p.array.Probe(ctx, false, routeros.Show("/disk/print detail as-value"))
	if err != nil {
		return broke(err)
	}
	var rows []map[string]any
	if len(values) != 1 || json.Unmarshal(values[0], &rows) != nil {
		return fail("the answer is no list of items: %.200s", values)
	}
	for _, row := range rows {
		if _, ok := row["slot"].(string); !ok {
			return fail("an item has no slot: %v", row)
		}
		if size, ok := row["size"]; ok && !isNumber(size) {
			return fail("disk %v has the size %q, which is no number", row["slot"], size)
		}
	}
	return pass("%d disks, with sizes as numbers", len(rows))
}

func isNumber(v any) bool {
	_, ok := v.(float64)
	return ok
}

func quoting(ctx context.Context, p *patient) outcome {
	var all strings.Builder
	for c := byte(' '); c <= '~'; c++ {
		all.WriteByte(c)
	}
	return echoes(ctx, p, all.String()+` $x \$x [:put 1] "; /nothing`)
}

func wrapping(ctx context.Context, p *patient) outcome {
	return echoes(ctx, p, strings.Repeat("0123456789", 60))
}

func longCommand(ctx context.Context, p *patient) outcome {
	room := routeros.ProbeRoom() - len(routeros.Show(`:tostr ""`))
	return echoes(ctx, p, strings.Repeat("x", room))
}

// echoes has the array read a text and show it.
func echoes(ctx context.Context, p *patient, text string) outcome {
	got, err := p.text(ctx, ":tostr "+routeros.Quote(text))
	if err != nil {
		return broke(err)
	}
	if got != text {
		return fail("%d bytes came back as %d: %.80q", len(text), len(got), got)
	}
	return pass("%d bytes came back unchanged", len(text))
}

func longAnswer(ctx context.Context, p *patient) outcome {
	values, err := p.array.Probe(ctx, false,
		`:local long "0123456789abcdef"`, fmt.Sprintf(`:while ([:len $long]<%d) do={:set long ($long . $long)}`, answerSize), routeros.Show(":tostr $long"))
	if err != nil {
		return broke(err)
	}
	if len(values) != 1 {
		return fail("the array showed %d values instead of 1", len(values))
	}
	got, err := decodeText(values[0])
	if err != nil {
		return fail("%v", err)
	}
	if want := strings.Repeat("0123456789abcdef", answerSize/16); got != want {
		return fail("of %d bytes %d came back, or others", len(want), len(got))
	}
	return pass("%d bytes arrived whole", len(got))
}

func failures(ctx context.Context, p *patient) outcome {
	const words = "the doctor's own failure"
	_, err := p.array.Probe(ctx, false, ":error "+routeros.Quote(words))
	var told *rds.Error
	switch {
	case err == nil:
		return fail("a failure was not noticed")
	case !errors.As(err, &told) || !strings.Contains(told.Words, words):
		return broke(err)
	}
	return pass("a failure is told, in its own words")
}

func parallel(ctx context.Context, p *patient) outcome {
	const each = 10
	group, ctx := errgroup.WithContext(ctx)
	for i := range p.config.MaxChannels {
		group.Go(func() error {
			for j := range each {
				want := fmt.Sprintf("answer %d of %d", j, i)
				got, err := p.text(ctx, ":tostr "+routeros.Quote(want))
				if err != nil {
					return err
				}
				if got != want {
					return fmt.Errorf("%q was answered with %q", want, got)
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return fail("%v", err) // a line that breaks is just what must not happen here
	}
	return pass("%d commands, %d at once", each*p.config.MaxChannels, p.config.MaxChannels)
}

func unsetComment(ctx context.Context, p *patient) outcome {
	values, err := p.array.Probe(ctx, false, routeros.Show("/disk/print detail as-value"), routeros.Show(`:len [/disk/find where comment="" or !comment]`))
	if err != nil {
		return broke(err)
	}
	var rows []map[string]any
	if len(values) != 2 || json.Unmarshal(values[0], &rows) != nil {
		return unknown("the disks could not be read")
	}
	without := 0
	for _, row := range rows {
		if comment, _ := row["comment"].(string); comment == "" {
			without++
		}
	}
	found, err := decodeText(values[1])
	switch {
	case err != nil:
		return fail("%v", err)
	case without == 0:
		return unknown("every disk has a comment")
	case found != fmt.Sprint(without):
		return fail("%d disks have no comment, %s are found", without, found)
	}
	return pass("%d of %d disks have none, and are found", without, len(rows))
}

// decodeText reads a value that stands alone, whatever its type.
func decodeText(value json.RawMessage) (string, error) {
	var text string
	if json.Unmarshal(value, &text) == nil {
		return text, nil
	}
	var number json.Number
	if err := json.Unmarshal(value, &number); err != nil {
		return "", fmt.Errorf("%.80s is neither text nor number", value)
	}
	return strings.TrimSuffix(number.String(), ".000000"), nil
}
