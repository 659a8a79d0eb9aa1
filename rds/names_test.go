package rds

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"
)

func TestSlotFor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "uuid"))
		name := "pvc-" + id.String()
		slot := SlotFor(name)
		if len(slot) > MaxNewSlot || !ValidSlot(slot) {
			t.Fatalf("slot %q", slot)
		}
		raw, err := slotEncoding.DecodeString(strings.TrimPrefix(slot, slotPrefix))
		if err != nil || uuid.UUID(raw) != id {
			t.Fatalf("%q does not turn back into %s", slot, id)
		}
	})
}

func TestNamesOf(t *testing.T) {
	const name = "pvc-7d1f8c52-9a0e-4b57-8c39-1f2e3d4c5b6a"
	if got := NamesOf(SlotFor(name)); got[0] != name {
		t.Errorf("of a slot: %q", got)
	}
	// Another plugin's, an administrator's.
	for _, slot := range []string{name, "vm-storage-001"} {
		if got := NamesOf(slot); len(got) != 1 || got[0] != slot {
			t.Errorf("of %s: %q", slot, got)
		}
	}
}

func TestSlotForOtherNames(t *testing.T) {
	seen := map[string]string{}
	for _, name := range []string{
		"", "a", "A", "pvc-", "sanity-1", "pvc-3C4E8A2E-0000-4000-8000-000000000001", "pvc-3c4e8a2e-0000-4000-8000-000000000001",
		"3c4e8a2e-0000-4000-8000-000000000001", "pvc-{3c4e8a2e-0000-4000-8000-000000000001}", strings.Repeat("x", 300), "Größe \"$;",
	} {
		slot := SlotFor(name)
		if other, taken := seen[slot]; taken || len(slot) > MaxNewSlot || !ValidSlot(slot) || slot != SlotFor(name) {
			t.Errorf("SlotFor(%q) = %q (also of %q)", name, slot, other)
		}
		seen[slot] = name
	}
}

func TestParseHandle(t *testing.T) {
	for _, s := range []string{"pvc-abc", "pvc-3c4e8a2e-0000-4000-8000-000000000001", "pvc-abc.west-1", "A_b"} {
		if h, err := ParseHandle(s); err != nil || h.String() != s {
			t.Errorf("ParseHandle(%q) = %v, %v", s, h, err)
		}
	}
	for _, s := range []string{"", ".", "a.", ".a", "a.b.c", "a/b", "a b", "a\"b", "a$b", "-a", "a.-b", "a.B", strings.Repeat("a", 65), "a\n", "a."} {
		if h, err := ParseHandle(s); !errors.Is(err, ErrInvalid) {
			t.Errorf("ParseHandle(%q) = %v, %v, want ErrInvalid", s, h, err)
		}
	}
}

func TestGenerationOf(t *testing.T) {
	if g, ok := GenerationOf(NQN(DefaultNQNPrefix, "pvc-a", 12), "pvc-a"); g != 12 || !ok || !MadeHere(NQN(DefaultNQNPrefix, "pvc-a", 12), "pvc-a") {
		t.Errorf("our own NQN: %d, %v", g, ok)
	}
	for _, nqn := range []string{"", "pvc-a.g1", DefaultNQNPrefix + ":pvc-a", DefaultNQNPrefix + ":pvc-b.g1", DefaultNQNPrefix + ":pvc-a.g", DefaultNQNPrefix + ":pvc-a.gx", DefaultNQNPrefix + ":pvc-a.g-1"} {
		if g, ok := GenerationOf(nqn, "pvc-a"); ok || MadeHere(nqn, "pvc-a") {
			t.Errorf("GenerationOf(%q) = %d, though it is not ours", nqn, g)
		}
	}
}

// A ledger parts its entries by blanks and names from times by "=", and its text from
// somebody else's by a bar.
func TestValidNode(t *testing.T) {
	for _, id := range []string{"node-a", "10.0.0.1", "ip-10-0-0-1.example.com", "zone_1:node", strings.Repeat("a", 253)} {
		ledger := Ledger{Known: true}.with(id, time.Unix(1, 0))
		if !ValidNode(id) || !ParseLedger(ledger.String()).Holds(id) {
			t.Errorf("%q is a node's id", id)
		}
	}
	for _, id := range []string{"", "a b", "a=1", "a|b", "-a", "deleting ", "größe", "a\n", strings.Repeat("a", 254)} {
		if ValidNode(id) {
			t.Errorf("%q is no node's id", id)
		}
	}
}

func TestError(t *testing.T) {
	cause := errors.New("connection reset")
	err := error(&Error{Kind: ErrUnreachable, Op: "read volume", Array: "west", Slot: "pvc-a", Words: "so\r\n  be it", Hint: "look", Err: cause})
	if !errors.Is(err, ErrUnreachable) || !errors.Is(err, cause) || errors.Is(err, ErrBusy) {
		t.Errorf("%v wraps the wrong things", err)
	}
	for _, part := range []string{"read volume pvc-a", "west", "unreachable", "connection reset", "so be it", "look"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q lacks %q", err, part)
		}
	}
	var nothing *Error
	if errors.As(error(&Error{Kind: ErrBusy}), &nothing); nothing == nil || errors.Is(nothing, cause) {
		t.Error("an error without a cause must be searchable")
	}
}
