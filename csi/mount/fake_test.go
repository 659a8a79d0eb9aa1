package mount

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"git.srvlab.io/whiskey/rds-csi-operator/csi/node/child"
)

// scripted answers commands by their beginning.
type scripted struct {
	t       *testing.T
	answers map[string]answer
	ran     []string
}

type answer struct {
	out []byte
	err error
}

func (s *scripted) Run(_ context.Context, c child.Command) ([]byte, error) {
	if c.Timeout <= 0 {
		s.t.Errorf("%s has no deadline", c)
	}
	s.ran = append(s.ran, c.String())
	for prefix, a := range s.answers {
		if strings.HasPrefix(c.String(), prefix) {
			return a.out, a.err
		}
	}
	return nil, nil
}

func exit(code int, words string) answer {
	return answer{err: &child.ExitError{Code: code, Output: words}}
}

// Nothing but a proof makes a device blank.
func TestInspectFailsClosed(t *testing.T) {
	zeros := answer{out: make([]byte, edge)}
	for name, c := range map[string]struct {
		blkid, dd answer
		want      Content
		err       error // nil with any other failure
		fails     bool
	}{
		"blank":               {blkid: exit(2, ""), dd: zeros, want: Content{Blank: true}},
		"a filesystem":        {blkid: answer{out: []byte("TYPE=xfs\n")}, want: Content{Type: XFS}},
		"a partition table":   {blkid: answer{out: []byte("PTTYPE=gpt\n")}, want: Content{Type: "unknown data, probably partitions"}},
		"two filesystems":     {blkid: exit(8, "ambivalent"), fails: true},
		"blkid fails":         {blkid: exit(4, ""), fails: true},
		"blkid is missing":    {blkid: answer{err: child.ErrNotFound}, err: child.ErrNotFound, fails: true},
		"blkid hangs":         {blkid: answer{err: child.ErrDeadline}, err: child.ErrDeadline, fails: true},
		"blkid says nonsense": {blkid: answer{out: []byte("what")}, fails: true},
		"reading fails":       {blkid: exit(2, ""), dd: exit(1, "Input/output error"), fails: true},
		"reading hangs":       {blkid: exit(2, ""), dd: answer{err: child.ErrDeadline}, err: child.ErrDeadline, fails: true},
		"reading falls short": {blkid: exit(2, ""), dd: answer{out: make([]byte, edge-512)}, fails: true},
		"reading gives none":  {blkid: exit(2, ""), fails: true},
		"not zero":            {blkid: exit(2, ""), dd: answer{out: append(make([]byte, edge-1), 1)}},
	} {
		t.Run(name, func(t *testing.T) {
			s := &scripted{t: t, answers: map[string]answer{"blkid": c.blkid, "dd": c.dd}}
			got, err := New(s, "").Inspect(t.Context(), "/dev/nvme0n1", 1<<30)
			if got != c.want || (err != nil) != c.fails || c.err != nil && !errors.Is(err, c.err) {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	for code, want := range map[int]struct{ damaged, fails bool }{
		0: {}, 1: {}, 2: {}, 3: {},
		4: {true, true}, 5: {true, true}, 8: {false, true}, 12: {false, true}, 32: {false, true}, 128: {false, true},
	} {
		s := &scripted{t: t, answers: map[string]answer{}}
		if code != 0 {
			s.answers["fsck"] = exit(code, "words")
		}
		err := New(s, "").Check(t.Context(), "/dev/nvme0n1", Ext4)
		if (err != nil) != want.fails || errors.Is(err, ErrDamaged) != want.damaged {
			t.Errorf("exit code %d: %v", code, err)
		}
	}
	s := &scripted{t: t}
	if err := New(s, "").Check(t.Context(), "/dev/nvme0n1", XFS); err != nil || len(s.ran) != 0 {
		t.Errorf("XFS: %v, ran %q", err, s.ran)
	}
}

// A deadline stays one through mount-utils, which keeps the words of errors only.
func TestGrowKeepsTheError(t *testing.T) {
	s := &scripted{t: t, answers: map[string]answer{"blkid": {out: []byte("TYPE=ext4\n")}, "resize2fs": {err: child.ErrDeadline}}}
	if err := New(s, "").Grow(t.Context(), "/dev/nvme0n1", "/mnt"); !errors.Is(err, child.ErrDeadline) {
		t.Errorf("got %v", err)
	}
}

// blkid ends with the same code for nothing recognized and for nothing read: neither
// is a filesystem that was grown.
func TestGrowGrows(t *testing.T) {
	for name, blkid := range map[string]answer{"recognizes nothing": exit(2, ""), "says nothing": {}} {
		t.Run(name, func(t *testing.T) {
			s := &scripted{t: t, answers: map[string]answer{"blkid": blkid}}
			if err := New(s, "").Grow(t.Context(), "/dev/nvme0n1", "/mnt"); err == nil {
				t.Errorf("it ran %q and says that it has grown", s.ran)
			}
		})
	}
}

// umount says that it worked, and the kernel says otherwise.
func TestUnmountLooks(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mountinfo")
	if err := os.WriteFile(file, []byte(recorded), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &scripted{t: t}
	if err := New(s, file).Unmount(t.Context(), "/var/lib/kubelet/publish/pvc-b"); !errors.Is(err, ErrStillMounted) {
		t.Errorf("got %v", err)
	}
	s = &scripted{t: t}
	if err := New(s, file).Unmount(t.Context(), "/nothing/here"); err != nil || len(s.ran) != 0 {
		t.Errorf("got %v, ran %q", err, s.ran)
	}
}
