// Package wire is what the host of the test bed and the agent in a guest say to
// each other: HTTP with JSON, and an upgraded connection that forwards a socket.
package wire

import "strconv"

const (
	// Port is the TCP port the agent listens on, inside the guest.
	Port = 7000
	// Forward is the Upgrade token of a forwarded connection.
	Forward = "forward"
)

// Command asks the agent to run a program.
type Command struct {
	Args  []string `json:"args"`
	Stdin []byte   `json:"stdin,omitempty"`
	Env   []string `json:"env,omitempty"` // added to the agent's own
	// Background starts the program and answers at once with its id.
	Background bool `json:"background,omitempty"`
}

// Result is how a program ended, or how far a background program is.
type Result struct {
	ID      int    `json:"id,omitempty"` // of a background program
	Running bool   `json:"running,omitempty"`
	Code    int    `json:"code"` // exit status; 128 + signal if killed
	Stdout  []byte `json:"stdout,omitempty"`
	Stderr  []byte `json:"stderr,omitempty"`
	// Failure is why the program did not run at all.
	Failure string `json:"failure,omitempty"`
}

// Signal asks the agent to signal a background program and all it started.
type Signal struct {
	ID     int `json:"id"`
	Signal int `json:"signal"`
}

// ExitText describes a Result's code for people.
func (r Result) ExitText() string {
	switch {
	case r.Failure != "":
		return r.Failure
	case r.Running:
		return "still running"
	case r.Code > 128:
		return "killed by signal " + strconv.Itoa(r.Code-128)
	}
	return "exit status " + strconv.Itoa(r.Code)
}
