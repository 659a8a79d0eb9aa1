package main

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"syscall"
	"unsafe"

	"git.srvlab.io/whiskey/rds-csi-operator/test/dataplane/wire"
)

// A block says who wrote it, in which write, and that it is whole:
//
//	writer (8 bytes) · sequence (8) · filling · CRC-32C (4)
const blockSize = 4096

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// aligned gives a block that O_DIRECT accepts.
func aligned() []byte {
	raw := make([]byte, 2*blockSize)
	skip := blockSize - int(uintptr(unsafe.Pointer(&raw[0]))%blockSize)
	return raw[skip : skip+blockSize]
}

func fill(block []byte, writer, sequence uint64) {
	binary.LittleEndian.PutUint64(block, writer)
	binary.LittleEndian.PutUint64(block[8:], sequence)
	for i := 16; i < blockSize-4; i++ {
		block[i] = byte(sequence) + byte(i)
	}
	binary.LittleEndian.PutUint32(block[blockSize-4:], crc32.Checksum(block[:blockSize-4], castagnoli))
}

func parse(block []byte) (writer, sequence uint64, whole bool) {
	sum := crc32.Checksum(block[:blockSize-4], castagnoli)
	return binary.LittleEndian.Uint64(block), binary.LittleEndian.Uint64(block[8:]),
		sum == binary.LittleEndian.Uint32(block[blockSize-4:])
}

// writeBlocks writes block after block, round and round, one at a time and past
// every cache, and prints the sequence number of each write that was
// acknowledged. Sequence numbers begin at 1; write s goes to block (s-1) mod N.
func writeBlocks(args []string) error {
	flags := flag.NewFlagSet("write", flag.ContinueOnError)
	path := flags.String("path", "", "block device or file")
	writer := flags.Uint64("writer", 1, "who writes")
	blocks := flags.Int64("blocks", 256, "blocks to go round")
	count := flags.Uint64("count", 0, "writes to do; 0 goes on for ever")
	if err := flags.Parse(args); err != nil {
		return err
	}
	file, err := os.OpenFile(*path, os.O_WRONLY|syscall.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	block := aligned()
	for s := uint64(1); *count == 0 || s <= *count; s++ {
		fill(block, *writer, s)
		if _, err := file.WriteAt(block, int64(s-1)%*blocks*blockSize); err != nil {
			return fmt.Errorf("write %d: %w", s, err)
		}
		fmt.Println(s)
	}
	return file.Sync()
}

// verifyBlocks reads the blocks past every cache and prints what it found.
func verifyBlocks(args []string) error {
	flags := flag.NewFlagSet("verify", flag.ContinueOnError)
	path := flags.String("path", "", "block device or file")
	blocks := flags.Int64("blocks", 256, "blocks to read")
	if err := flags.Parse(args); err != nil {
		return err
	}
	file, err := os.OpenFile(*path, os.O_RDONLY|syscall.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	report := wire.Blocks{ByWriter: map[uint64]int{}, Sequences: make([]uint64, *blocks)}
	digest := sha256.New()
	block := aligned()
	for i := range *blocks {
		if _, err := file.ReadAt(block, i*blockSize); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read block %d: %w", i, err)
		}
		digest.Write(block)
		writer, sequence, whole := parse(block)
		if !whole {
			report.Broken++ // never written, or torn
			continue
		}
		report.ByWriter[writer]++
		report.Sequences[i] = sequence
	}
	report.SHA256 = fmt.Sprintf("%x", digest.Sum(nil))
	return json.NewEncoder(os.Stdout).Encode(report)
}
