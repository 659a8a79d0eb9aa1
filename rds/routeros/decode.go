package routeros

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
	"path"
	"strings"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// row is one item of a menu, as :serialize spells it. Its accessors accept every
// spelling that was seen: numbers as 2048, 2048.000000, "2048" or "2 048",
// booleans as true, "true" or "yes", absent or null where a property is unset.
type row map[string]any

// decodeRows reads a list of items. A menu with one item answers with a bare
// object, one without any with [] or null.
func decodeRows(value json.RawMessage) ([]row, error) {
	value = bytes.TrimSpace(value)
	decoder := json.NewDecoder(bytes.NewReader(value))
	decoder.UseNumber()
	var rows []row
	if len(value) > 0 && value[0] == '{' {
		rows = make([]row, 1)
		if err := decoder.Decode(&rows[0]); err != nil {
			return nil, fmt.Errorf("read an item of the answer: %w", err)
		}
		return rows, nil
	}
	if err := decoder.Decode(&rows); err != nil {
		return nil, fmt.Errorf("read the items of the answer: %w", err)
	}
	return rows, nil
}

// decodeText reads a value that stands alone; null is the empty text.
func decodeText(value json.RawMessage) (string, error) {
	var text string
	if err := json.Unmarshal(value, &text); err != nil {
		return "", fmt.Errorf("read a value of the answer: %w", err)
	}
	return text, nil
}

func (r row) text(key string) string {
	switch v := r[key].(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	case bool:
		return fmt.Sprint(v)
	default:
		return ""
	}
}

func (r row) flag(key string) bool {
	switch r.text(key) {
	case "true", "yes":
		return true
	}
	return false
}

// number reads a whole, not negative number exactly; ok is false for anything
// else, above all for a rounded size like 1024.0GiB.
func (r row) number(key string) (n int64, ok bool) {
	text := strings.ReplaceAll(r.text(key), " ", "")
	if text == "" || len(text) > 40 || strings.Trim(text, "0123456789.") != "" {
		return 0, false
	}
	value, ok := new(big.Rat).SetString(text)
	if !ok || !value.IsInt() || !value.Num().IsInt64() {
		return 0, false
	}
	return value.Num().Int64(), true
}

// volume reads a disk's row. ours is false for a disk that is not a volume: not
// file-backed, not below the base path (which a path with ".." may leave again), or of
// a slot that no handle can name. The size is 0 where the array shows no exact one.
func (r row) volume(c *Config) (v rds.Volume, ours bool) {
	file := strings.TrimPrefix(r.text("file-path"), "/")
	v = rds.Volume{
		ID:       r.text(".id"),
		Slot:     r.text("slot"),
		Path:     "/" + file,
		NQN:      r.text("nvme-tcp-server-nqn"),
		Exported: r.flag("nvme-tcp-export"),
		Comment:  r.text("comment"),
		Size:     r.diskSize(),
	}
	if kind := r.text("type"); kind != "file" || !strings.HasPrefix(file, c.BasePath+"/") || path.Clean(file) != file || !rds.ValidSlot(v.Slot) {
		return v, false
	}
	v.Ledger = rds.ParseLedger(v.Comment)
	port, ok := r.number("nvme-tcp-server-port")
	if v.Port = int(port); !ok || port == 0 {
		v.Port = c.NVMePort
	}
	return v, true
}

// diskSize is exact: size is the block device's, file-size what was asked for. It
// is 0 if the array shows neither exactly.
func (r row) diskSize() int64 {
	for _, key := range []string{"size", "file-size"} {
		if n, ok := r.number(key); ok && n > 0 {
			return n
		}
	}
	return 0
}

// pool is the file system below the base path, and the slot of its disk.
type pool struct {
	rds.Pool
	slot string
}

// decodePool finds the pool among all disks.
func decodePool(rows []row, c *Config) (pool, error) {
	var p pool
	var mounted []string
	for _, r := range rows {
		point := strings.Trim(r.text("mount-point"), "/")
		if point == "" {
			continue
		}
		mounted = append(mounted, point)
		if point != c.mountPoint() {
			continue
		}
		size, sized := r.number("size")
		free, known := r.number("free")
		if !sized || !known {
			return pool{}, fmt.Errorf("pool %s shows no exact size and free space (size %q, free %q)", point, r.text("size"), r.text("free"))
		}
		p = pool{slot: r.text("slot"), Pool: rds.Pool{MountPoint: point, FS: r.text("fs"), State: r.text("state"), Size: size, Free: free}}
	}
	if p.slot == "" {
		found := "nothing is mounted"
		if len(mounted) > 0 {
			found = "mounted are " + strings.Join(mounted, ", ")
		}
		return pool{}, &rds.Error{Kind: rds.ErrUnsupported, Err: fmt.Errorf("no pool is mounted at %q: %s", c.mountPoint(), found),
			Hint: "the first component of basePath is the pool's mount point"}
	}
	for _, r := range rows {
		path := strings.TrimPrefix(r.text("file-path"), "/")
		if r.text("type") == "file" && strings.HasPrefix(path, p.MountPoint+"/") {
			p.Allocated += r.diskSize()
		}
	}
	return p, nil
}

// checkVersion refuses a RouterOS whose exports cannot be given a name.
func checkVersion(version string) error {
	return atLeast(version, 21, "can name an NVMe/TCP export")
}

// atLeast refuses a RouterOS older than 7 with that minor version, which first
// can do something.
func atLeast(version string, needed int, does string) error {
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil {
		return &rds.Error{Kind: rds.ErrUnsupported, Err: fmt.Errorf("RouterOS version %q is not understood", version)}
	}
	if major < 7 || major == 7 && minor < needed {
		return &rds.Error{Kind: rds.ErrUnsupported, Err: fmt.Errorf("RouterOS %s is too old", version),
			Hint: fmt.Sprintf("update to 7.%d or newer, which %s", needed, does)}
	}
	return nil
}
