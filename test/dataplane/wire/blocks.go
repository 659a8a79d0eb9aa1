package wire

import "fmt"

// Blocks is what `agent verify` found on a device.
type Blocks struct {
	SHA256    string         `json:"sha256"`
	Broken    int            `json:"broken"`   // blocks that no writer made, or made whole
	ByWriter  map[uint64]int `json:"byWriter"` // blocks by their last writer
	Sequences []uint64       `json:"sequences"`
}

// Lost says which acknowledged writes the device does not hold: write s went to
// block (s-1) mod N, and only a later write may stand there instead.
func (b Blocks) Lost(acknowledged uint64) error {
	n := uint64(len(b.Sequences))
	for i, found := range b.Sequences {
		first := uint64(i) + 1
		if acknowledged < first {
			continue
		}
		want := first + (acknowledged-first)/n*n
		if found < want {
			return fmt.Errorf("block %d holds write %d, but write %d was acknowledged", i, found, want)
		}
	}
	return nil
}
