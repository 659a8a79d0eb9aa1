package rds

import (
	"encoding/base32"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

const (
	// DefaultNQNPrefix is what RouterOS itself puts in front of a slot.
	DefaultNQNPrefix = "nqn.2000-02.com.mikrotik"
	// MaxNewSlot is the longest slot that RouterOS 7.24 accepts, in characters [HW].
	MaxNewSlot = 32
	slotPrefix = "pvc-"
)

// slotNamespace makes slots of names that hold no UUID; it must never change.
var slotNamespace = uuid.MustParse("6d2e0e0c-52f8-5e0b-9a63-5d1c1f3a7b10")

var slotEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// slotPattern bounds what may stand in a slot that reaches the array: no quote,
// no slash, no character that RouterOS or a regular expression interprets.
var slotPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

var nodePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,252}$`)

var arrayPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// SlotFor derives the slot of a volume from the name that the CO gave it, in 30
// characters: `pvc-` and the UUID of a name `pvc-<UUID>` in base32, which can be
// turned back, or a version 5 UUID of any other name.
func SlotFor(name string) string {
	id, err := uuid.Parse(strings.TrimPrefix(name, slotPrefix))
	if err != nil || slotPrefix+id.String() != name {
		id = uuid.NewSHA1(slotNamespace, []byte(name))
	}
	return slotPrefix + slotEncoding.EncodeToString(id[:])
}

// NamesOf lists the names that a volume may have in the CO, by its slot: the one
// that SlotFor makes the slot of, and the slot itself, which is how another plugin
// names its volumes. It cannot know names that hold no UUID.
func NamesOf(slot string) []string {
	names := []string{slot}
	if b, err := slotEncoding.DecodeString(strings.TrimPrefix(slot, slotPrefix)); err == nil {
		if id, err := uuid.FromBytes(b); err == nil && SlotFor(slotPrefix+id.String()) == slot {
			names = append([]string{slotPrefix + id.String()}, names...)
		}
	}
	return names
}

// Handle identifies a volume to the CO.
type Handle struct {
	Slot  string
	Array string // empty for the default array
}

// ParseHandle reads `<slot>` or `<slot>.<array>`. A handle that is neither is
// ErrInvalid: no such volume was ever made by this driver.
func ParseHandle(s string) (Handle, error) {
	slot, array, named := strings.Cut(s, ".")
	if !slotPattern.MatchString(slot) || (named && !arrayPattern.MatchString(array)) {
		return Handle{}, &Error{Kind: ErrInvalid, Op: "read the volume handle", Err: fmt.Errorf("%q is not of the form <slot> or <slot>.<array>", s)}
	}
	return Handle{Slot: slot, Array: array}, nil
}

// String is the handle as the CO knows it.
func (h Handle) String() string {
	if h.Array == "" {
		return h.Slot
	}
	return h.Slot + "." + h.Array
}

// NQN names the export of a slot in one generation. A new one for every step
// from nobody to somebody keeps a host that was cut off from coming back.
func NQN(prefix, slot string, generation uint64) string {
	return fmt.Sprintf("%s:%s.g%d", prefix, slot, generation)
}

// GenerationOf reads the generation back from an NQN of the volume's slot.
// ok is false for the NQN of another plugin, which is never rotated.
func GenerationOf(nqn, slot string) (generation uint64, ok bool) {
	_, name, found := strings.Cut(nqn, ":")
	number, ours := strings.CutPrefix(name, slot+".g")
	if !found || !ours {
		return 0, false
	}
	generation, err := strconv.ParseUint(number, 10, 63)
	return generation, err == nil
}

// MadeHere reports whether an NQN of the slot is one that only this driver gives out:
// one with a generation, for one step from nobody to somebody.
func MadeHere(nqn, slot string) bool {
	_, ok := GenerationOf(nqn, slot)
	return ok
}

// ValidSlot reports whether the slot is one that a handle can name.
func ValidSlot(slot string) bool { return slotPattern.MatchString(slot) }

// ValidNode reports whether a ledger can hold the node id: at most 253 letters, digits,
// '.', '_', ':' and '-', since it parts its entries by blanks and names from times by "=".
func ValidNode(id string) bool { return nodePattern.MatchString(id) }
