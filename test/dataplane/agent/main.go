package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"

	"git.srvlab.io/whiskey/rds-csi-operator/test/dataplane/nvmet"
	"git.srvlab.io/whiskey/rds-csi-operator/test/dataplane/wire"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return serve()
	}
	switch args[0] {
	case "write":
		return writeBlocks(args[1:])
	case "verify":
		return verifyBlocks(args[1:])
	}
	return fmt.Errorf("no such command %q", args[0])
}

func serve() error {
	listener, err := net.Listen("tcp", ":"+strconv.Itoa(wire.Port))
	if err != nil {
		return err
	}
	commands := &programs{byID: map[int]*program{}}
	target := nvmet.New()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ready", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("POST /run", answer(commands.run))
	mux.HandleFunc("POST /signal", answer(commands.signal))
	mux.HandleFunc("POST /wait", answer(commands.wait))
	mux.HandleFunc("POST /look", answer(commands.look))
	mux.HandleFunc("GET /file", readFile)
	mux.HandleFunc("PUT /file", writeFile)
	mux.HandleFunc("GET /dial", forward)
	mux.HandleFunc("POST /nvmet", answer(target.Do))
	fmt.Println("agent: ready")
	return http.Serve(listener, mux)
}

// answer turns a function into a handler that speaks JSON; an error becomes
// status 500 with its text.
func answer[In, Out any](do func(In) (Out, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in In
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		out, err := do(in)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(out) // a lost answer is the caller's to see
	}
}
