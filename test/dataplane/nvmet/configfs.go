package nvmet

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

const (
	configfs = "/sys/kernel/config/nvmet"
	port     = configfs + "/ports/1"
	// keeper is a subsystem without a namespace: a port of nvmet listens only
	// while something is linked to it.
	keeper = "nqn.2000-02.com.mikrotik:keeper"
)

// identity is what a host knows a namespace by; zero means none.
type identity struct{ uuid, nguid [16]byte }

func identify(kind Identity, file string) identity {
	var id identity
	switch kind {
	case IdentityNone:
	case IdentityRandom:
		_, _ = rand.Read(id.uuid[:]) // never fails
		_, _ = rand.Read(id.nguid[:])
	default:
		sum := sha256.Sum256([]byte(file))
		copy(id.uuid[:], sum[:16])
		copy(id.nguid[:], sum[16:])
	}
	return id
}

func (i identity) spell(b [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// set writes one attribute; the kernel wants it in one piece.
func set(value string, elements ...string) error {
	return os.WriteFile(filepath.Join(elements...), []byte(value), 0o644)
}

func subsystem(nqn string) string { return filepath.Join(configfs, "subsystems", nqn) }

func namespace(nqn string) string { return filepath.Join(subsystem(nqn), "namespaces", "1") }

func openPort(number int) error {
	err := os.Mkdir(port, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, attribute := range [][2]string{
		{"addr_trtype", "tcp"}, {"addr_adrfam", "ipv4"}, {"addr_traddr", "0.0.0.0"}, {"addr_trsvcid", strconv.Itoa(number)},
	} {
		if err := set(attribute[1], port, attribute[0]); err != nil {
			return err
		}
	}
	if err := os.Mkdir(subsystem(keeper), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	// Exports that were there before the port are linked to it now.
	all, err := os.ReadDir(filepath.Join(configfs, "subsystems"))
	if err != nil {
		return err
	}
	for _, s := range all {
		if err := link(s.Name()); err != nil {
			return err
		}
	}
	return nil
}

// closePort throws every host out and stops listening.
func closePort() error {
	linked, err := os.ReadDir(filepath.Join(port, "subsystems"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, s := range linked {
		if err := unlink(s.Name()); err != nil {
			return err
		}
	}
	return os.Remove(port)
}

// link makes a subsystem reachable, if there is a port.
func link(nqn string) error {
	err := os.Symlink(subsystem(nqn), filepath.Join(port, "subsystems", nqn))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

func unlink(nqn string) error {
	return ignoreMissing(os.Remove(filepath.Join(port, "subsystems", nqn)))
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func makeSubsystem(nqn, allowHost, device string, id identity) error {
	dir := subsystem(nqn)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := set("ROSE", dir, "attr_model"); err != nil {
		return err
	}
	if err := admit(dir, allowHost); err != nil {
		return err
	}
	if err := os.Mkdir(namespace(nqn), 0o755); err != nil {
		return err
	}
	return enableNamespace(nqn, device, id)
}

// admit says which host may connect to a subsystem; an empty one means any.
func admit(dir, host string) error {
	if host == "" {
		return set("1", dir, "attr_allow_any_host")
	}
	known := filepath.Join(configfs, "hosts", host)
	if err := os.Mkdir(known, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.Symlink(known, filepath.Join(dir, "allowed_hosts", host))
}

func enableNamespace(nqn, device string, id identity) error {
	ns := namespace(nqn)
	for _, attribute := range [][2]string{
		{"device_path", device}, {"device_uuid", id.spell(id.uuid)}, {"device_nguid", id.spell(id.nguid)}, {"enable", "1"},
	} {
		if err := set(attribute[1], ns, attribute[0]); err != nil {
			return err
		}
	}
	return nil
}

func disableNamespace(nqn string) error { return set("0", namespace(nqn), "enable") }

func removeSubsystem(nqn string) error {
	if err := unlink(nqn); err != nil {
		return err
	}
	if err := disableNamespace(nqn); err != nil {
		return err
	}
	if err := os.Remove(namespace(nqn)); err != nil {
		return err
	}
	hosts, err := os.ReadDir(filepath.Join(subsystem(nqn), "allowed_hosts"))
	if err != nil {
		return err
	}
	for _, h := range hosts {
		if err := os.Remove(filepath.Join(subsystem(nqn), "allowed_hosts", h.Name())); err != nil {
			return err
		}
	}
	return os.Remove(subsystem(nqn))
}
