package routeros

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
)

// maxScript is how long a line may be, in bytes; RouterOS's own limit is not
// documented [INF].
const maxScript = 4 << 10

// The marks that a script prints between its values, each behind a nonce.
const (
	markBegin   = "<" // the script was parsed and runs
	markChanged = "+" // from here on the array may have been changed
	markUndone  = "-" // what was changed is as it was
	markEnd     = ">" // the script ran to its end
	markError   = "!" // the array's words follow, then markEnd
)

// A script is one line for the array. Its statements are RouterOS text in which
// every value went through Quote; a where holds literals only, since a variable
// that is named like a property would match every item.
type script struct {
	verb    string // what it does, for metrics
	mutates bool   // cut off in flight, its outcome is unknown
	nonce   string // of this run alone, so that no stale or echoed text passes for an answer
	body    []string
}

func newScript(verb string, mutates bool) *script {
	nonce := make([]byte, 8)
	_, _ = rand.Read(nonce) // never fails
	return &script{verb: verb, mutates: mutates, nonce: hex.EncodeToString(nonce)}
}

// line is the whole command. :onerror exists since 7.13; a complaint about the
// script itself bypasses it.
func (s *script) line() string {
	body := append([]string{s.mark(markBegin)}, s.body...)
	body = append(body, s.mark(markEnd))
	return fmt.Sprintf(":onerror e in={%s} do={%s;:put $e;%s}", strings.Join(body, ";"), s.mark(markError), s.mark(markEnd))
}

// mark spells the nonce in two halves, so that an echo of the command holds
// nothing that looks like its answer.
func (s *script) mark(m string) string {
	half := len(s.nonce) / 2
	return fmt.Sprintf(":put (%s . %s)", Quote(s.nonce[:half]), Quote(s.nonce[half:]+m))
}

func (s *script) add(statements ...string) *script {
	s.body = append(s.body, statements...)
	return s
}

// fill adds as many statements as fit, leaving room for some bytes more, and at
// least one. It returns the rest.
func (s *script) fill(statements []string, room int) []string {
	for i, statement := range statements {
		if i > 0 && len(s.line())+len(statement)+room+2 > maxScript {
			return statements[i:]
		}
		s.add(statement)
	}
	return nil
}

// guarded runs statements if all conditions hold. The array is marked as changed
// when the first is over: one that fails changes nothing, and says why.
func (s *script) guarded(conditions []string, first string, rest ...string) {
	s.add(when(conditions, append([]string{first, s.mark(markChanged)}, rest...)...))
}

func when(conditions []string, statements ...string) string {
	return fmt.Sprintf(":if (%s) do={%s}", strings.Join(conditions, " && "), strings.Join(statements, ";"))
}

// show prints a value as JSON: typed, unabbreviated, and immune to the wrapping
// of long lines. The composition with print is [INF].
func show(value string) string {
	return ":put [:serialize to=json options=json.no-string-conversion value=[" + value + "]]"
}

// count is a condition on how many items match.
func count(menu, where string, n int) string {
	return fmt.Sprintf("[:len [%s/find where %s]]=%d", menu, where, n)
}

const (
	diskMenu      = "/disk"
	fileMenu      = "/file"
	subvolumeMenu = "/disk/btrfs/subvolume"

	showVersion = "/system/resource/get version"
	showDisks   = "/disk/print detail as-value"
)

// showName prints the NQN of a slot's export, or null. While the export is off,
// print may leave it out, but get knows it [INF].
func showName(slot string) string {
	name := show("/disk/get " + find(diskMenu, whereSlot(slot)) + " nvme-tcp-server-nqn")
	none := `:put "null"`
	return ":if (" + count(diskMenu, whereSlot(slot), 1) + ") do={:onerror f in={" + name + "} do={" + none + "}} else={" + none + "}"
}

func disksWhere(where string) string { return showDisks + " where " + where }

// whereSlot finds a volume's disk.
func whereSlot(slot string) string { return "slot=" + Quote(slot) }

// whereCompared finds it only if the comment is what was read. The comparison
// stands in the very statement that changes, since the scripts of two
// connections may interleave between statements [INF]; within one it is taken
// to hold [INF], and every change is read back.
func whereCompared(slot, comment string) string {
	if comment == "" {
		// An unset comment may read as an empty text or as nothing [INF].
		return whereSlot(slot) + ` and (comment="" or !comment)`
	}
	return whereSlot(slot) + " and comment=" + Quote(comment)
}

// filePrefix is what a slot's files begin with, in /file's spelling. The image
// of another plugin's volume, <base>/<slot>.img, begins with it, too.
func filePrefix(base, slot string) string { return base + "/" + slot + "." }

// whereFiles finds a slot's files, and directories, by their prefix.
func whereFiles(base, slot string) string {
	return "name~" + quoteExpr("^", filePrefix(base, slot), "")
}

// whereImage finds the disks whose image has the prefix; /disk spells paths with
// a leading slash, but takes them without one.
func whereImage(prefix string) string {
	return "file-path~" + quoteExpr("^/?", prefix, "")
}

func find(menu, where string) string { return "[" + menu + "/find where " + where + "]" }
