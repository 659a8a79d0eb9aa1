package rds

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	ledgerMarker = "rds1"
	// ledgerDeleting marks a volume whose deletion has begun.
	ledgerDeleting = "deleting"
	// foreignMark parts the ledger from a text that somebody else wrote.
	foreignMark = " | "
	// MaxComment is the longest comment written, in bytes. The array's own limit
	// is not documented [INF].
	MaxComment = 240
	// maxNodeKey leaves room for two nodes, the rest of the ledger and some
	// foreign text within MaxComment.
	maxNodeKey = 63
)

// Publication is one node that was told to hold a volume.
type Publication struct {
	Node  string    // as NodeKey gives it
	Since time.Time // whole seconds
}

// Ledger records who was told to hold a volume. RouterOS cannot say who is
// connected, so this is kept in the disk's comment, where it survives every
// restart and where an administrator sees it:
//
//	rds1 g7 node-a=1760000000 node-b=1760000042 | text of somebody else
//
// The zero Ledger is unknown. Unknown never means "nobody".
type Ledger struct {
	Known        bool
	Problem      string        // why it is unknown, for people
	Generation   uint64        // rises with every write, so that no comment ever comes back
	Publications []Publication // oldest first
	Deleting     bool
	Foreign      string // ASCII text found in front of or behind the ledger
}

// NodeKey is the name under which a ledger knows a node: the node's own name,
// or, beyond 63 bytes, a prefix of it and a hash.
func NodeKey(node string) string {
	if len(node) <= maxNodeKey {
		return node
	}
	sum := sha256.Sum256([]byte(node))
	return node[:maxNodeKey-9] + "~" + hex.EncodeToString(sum[:4])
}

// ParseLedger reads a disk's comment. A comment without a readable ledger gives
// an unknown one that keeps the text and says why.
func ParseLedger(comment string) Ledger {
	if !printableASCII(comment) {
		return Ledger{Problem: "the comment is not printable ASCII, so no ledger can be kept beside it"}
	}
	own, foreign, _ := strings.Cut(comment, foreignMark)
	fields := strings.Fields(own)
	if len(fields) == 0 || fields[0] != ledgerMarker {
		problem := "no ledger in the comment"
		if comment == "" {
			problem = "the comment is empty"
		}
		return Ledger{Problem: problem, Foreign: comment}
	}
	l := Ledger{Known: true, Foreign: foreign}
	if err := l.parseFields(fields[1:]); err != nil {
		return Ledger{Problem: "the ledger in the comment is unreadable: " + err.Error(), Foreign: foreign}
	}
	return l
}

func (l *Ledger) parseFields(fields []string) error {
	if len(fields) == 0 || !strings.HasPrefix(fields[0], "g") {
		return fmt.Errorf("no generation")
	}
	generation, err := strconv.ParseUint(fields[0][1:], 10, 63)
	if err != nil {
		return fmt.Errorf("generation %q", fields[0])
	}
	l.Generation = generation
	for _, field := range fields[1:] {
		if field == ledgerDeleting {
			l.Deleting = true
			continue
		}
		node, since, found := strings.Cut(field, "=")
		seconds, err := strconv.ParseInt(since, 10, 64)
		if !found || node == "" || err != nil || seconds < 0 {
			return fmt.Errorf("entry %q", field)
		}
		if l.Holds(node) {
			return fmt.Errorf("node %s twice", node)
		}
		l.Publications = append(l.Publications, Publication{Node: node, Since: time.Unix(seconds, 0)})
	}
	sortPublications(l.Publications)
	return nil
}

// String is the comment that carries the ledger. It is empty for an unknown one.
func (l Ledger) String() string {
	if !l.Known {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s g%d", ledgerMarker, l.Generation)
	for _, p := range l.Publications {
		fmt.Fprintf(&b, " %s=%d", p.Node, p.Since.Unix())
	}
	if l.Deleting {
		b.WriteString(" " + ledgerDeleting)
	}
	if l.Foreign != "" {
		b.WriteString(foreignMark + l.Foreign)
	}
	return b.String()
}

// Check reports, as ErrLedger, a ledger that cannot be written to a comment.
func (l Ledger) Check() error {
	switch text := l.String(); {
	case !l.Known:
		return &Error{Kind: ErrLedger, Op: "write the ledger", Err: fmt.Errorf("%s", l.Problem)}
	case !printableASCII(text):
		return &Error{Kind: ErrLedger, Op: "write the ledger", Hint: "remove what is not ASCII from the disk's comment"}
	case len(text) > MaxComment:
		return &Error{Kind: ErrLedger, Op: "write the ledger", Hint: fmt.Sprintf("it would take %d of at most %d bytes; shorten the text in the disk's comment", len(text), MaxComment)}
	}
	return nil
}

// Holds reports whether the node was told to hold the volume.
func (l Ledger) Holds(node string) bool {
	_, ok := l.Since(node)
	return ok
}

// Since is when the node was told to hold the volume.
func (l Ledger) Since(node string) (time.Time, bool) {
	key := NodeKey(node)
	for _, p := range l.Publications {
		if p.Node == key {
			return p.Since, true
		}
	}
	return time.Time{}, false
}

// Nodes lists the holders, oldest first.
func (l Ledger) Nodes() []string {
	nodes := make([]string, 0, len(l.Publications))
	for _, p := range l.Publications {
		nodes = append(nodes, p.Node)
	}
	return nodes
}

// with is the ledger with the node added, if it is not in it yet.
func (l Ledger) with(node string, since time.Time) Ledger {
	if l.Holds(node) {
		return l
	}
	l.Publications = append(slices.Clone(l.Publications), Publication{Node: NodeKey(node), Since: since.Truncate(time.Second)})
	sortPublications(l.Publications)
	return l
}

// without is the ledger with the node taken out.
func (l Ledger) without(node string) Ledger {
	key := NodeKey(node)
	l.Publications = slices.DeleteFunc(slices.Clone(l.Publications), func(p Publication) bool { return p.Node == key })
	return l
}

// sortPublications puts the oldest first, so that one ledger has one spelling.
func sortPublications(p []Publication) {
	slices.SortFunc(p, func(a, b Publication) int {
		return cmp.Or(a.Since.Compare(b.Since), strings.Compare(a.Node, b.Node))
	})
}

func printableASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}
