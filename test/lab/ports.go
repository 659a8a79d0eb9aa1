package lab

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// Ports for the servers come from below the range that the kernel takes
// outgoing connections' ports from; one of those could take a free port between
// our look and the server's bind.
const (
	firstPort = 20000
	lastPort  = 31999
)

// port is a free TCP port on loopback. While the lab lives the UDP port of the
// same number is kept, which keeps other labs from choosing it.
type port struct {
	number int
	hold   net.PacketConn
}

func (p port) String() string { return fmt.Sprint(p.number) }

func freePort() (port, error) {
	for range 1000 {
		n := firstPort + rand.IntN(lastPort-firstPort+1)
		address := fmt.Sprintf("127.0.0.1:%d", n)
		hold, err := net.ListenPacket("udp4", address)
		if err != nil {
			continue
		}
		listener, err := net.Listen("tcp4", address)
		if err != nil {
			_ = hold.Close()
			continue
		}
		_ = listener.Close()
		return port{number: n, hold: hold}, nil
	}
	return port{}, errors.New("no free port on loopback")
}
