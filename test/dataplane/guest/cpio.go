package guest

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// archive writes an initramfs: a cpio archive in the "newc" form. Files come
// with the folders above them.
type archive struct {
	out     *bufio.Writer
	written int64
	inode   int
	have    map[string]bool
}

func newArchive(w io.Writer) *archive {
	return &archive{out: bufio.NewWriterSize(w, 1<<20), have: map[string]bool{".": true, "/": true}}
}

const (
	typeFolder = 0o040000
	typeFile   = 0o100000
	typeLink   = 0o120000
)

func (a *archive) entry(name string, mode uint32, content []byte) error {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if a.have[name] {
		return nil
	}
	a.have[name] = true
	if parent := path.Dir(name); !a.have[parent] {
		if err := a.entry(parent, typeFolder|0o755, nil); err != nil {
			return err
		}
	}
	a.inode++
	if err := a.header(name, mode, len(content)); err != nil {
		return err
	}
	if _, err := a.out.Write(content); err != nil {
		return err
	}
	a.written += int64(len(content))
	return a.pad()
}

func (a *archive) header(name string, mode uint32, size int) error {
	// ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
	n, err := fmt.Fprintf(a.out, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		a.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name)+1, 0, name)
	a.written += int64(n)
	if err != nil {
		return err
	}
	return a.pad()
}

func (a *archive) pad() error {
	n := (4 - a.written%4) % 4
	a.written += n
	_, err := a.out.WriteString("\x00\x00\x00\x00"[:n])
	return err
}

func (a *archive) folder(name string) error { return a.entry(name, typeFolder|0o755, nil) }

func (a *archive) link(name, target string) error {
	return a.entry(name, typeLink|0o777, []byte(target))
}

func (a *archive) bytes(name string, mode fs.FileMode, content []byte) error {
	return a.entry(name, typeFile|uint32(mode.Perm()), content)
}

// file copies a file of the host, links followed.
func (a *archive) file(name, from string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	content, err := os.ReadFile(filepath.Clean(from))
	if err != nil {
		return err
	}
	return a.bytes(name, info.Mode(), content)
}

func (a *archive) close() error {
	if err := a.header("TRAILER!!!", 0, 0); err != nil {
		return err
	}
	return a.out.Flush()
}
