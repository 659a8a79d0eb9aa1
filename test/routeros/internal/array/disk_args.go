package array

import (
	"strconv"
	"strings"

	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros/internal/script"
)

// argType is how a parameter's text is read; what is not listed is text.
type argType int

const (
	asText argType = iota
	asBool
	asSize
	asNumber
	asPort
	asOffset
)

var diskArgTypes = map[string]argType{
	"compress": asBool, "crypted-backend": asBool, "disabled": asBool, "iscsi-export": asBool,
	"media-sharing": asBool, "mount-filesystem": asBool, "mount-read-only": asBool, "nfs-sharing": asBool,
	"nvme-tcp-export": asBool, "raid-member-failed": asBool, "smb-sharing": asBool, "swap": asBool,
	"file-size": asSize, "ramdisk-size": asSize, "tmpfs-max-size": asSize, "partition-size": asSize,
	"file-offset": asOffset, "partition-offset": asOffset,
	"nvme-tcp-server-port": asPort, "nvme-tcp-port": asPort, "iscsi-port": asPort, "iscsi-server-port": asPort,
	"sshfs-port": asPort, "partition-number": asNumber, "raid-device-count": asNumber,
}

// diskTypes are the values of type.
var diskTypes = map[string]bool{
	"file": true, "raid": true, "partition": true, "hardware": true, "ramdisk": true, "tmpfs": true,
	"smb": true, "nfs": true, "nvme-tcp": true, "iscsi": true, "crypted": true, "sshfs": true,
}

func invalid(name string) error { return script.Failuref("invalid value of %s", name) }

// typed reads a parameter by its type.
func typed(name string, v script.Value) (script.Value, error) {
	s := v.String()
	switch diskArgTypes[name] {
	case asBool:
		if t, ok := script.Truth(script.String(s)); ok {
			return script.Bool(t), nil
		}
		return nil, invalid(name)
	case asSize:
		if n, ok := parseSize(s); ok && n > 0 {
			return script.Number(n), nil
		}
		return nil, invalid(name)
	case asOffset:
		if n, ok := parseSize(s); ok {
			return script.Number(n), nil
		}
		return nil, invalid(name)
	case asNumber, asPort:
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 0 || diskArgTypes[name] == asPort && (n == 0 || n > 65535) {
			return nil, invalid(name)
		}
		return script.Number(n), nil
	}
	if name == "type" && !diskTypes[s] {
		return nil, script.Failuref("input does not match any value of type")
	}
	return script.String(s), nil
}

// typedAll reads all parameters.
func typedAll(args map[string]script.Value) (map[string]script.Value, error) {
	out := map[string]script.Value{}
	for name, v := range args {
		val, err := typed(name, v)
		if err != nil {
			return nil, err
		}
		out[name] = val
	}
	return out, nil
}

// checkSlot refuses names that are taken, too long or not printable.
func (a *Array) checkSlot(slot string, self *disk) error {
	if slot == "" || strings.ContainsFunc(slot, func(r rune) bool { return r < ' ' || r == '/' }) {
		return invalid("slot")
	}
	if len(slot) > a.cfg.MaxSlotLength {
		return &script.Failure{Msg: a.cfg.Phrases.LongSlot}
	}
	if other := a.diskBySlot(slot); other != nil && other != self {
		return &script.Failure{Msg: a.cfg.Phrases.DuplicateSlot}
	}
	return nil
}
