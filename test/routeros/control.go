package routeros

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	gossh "golang.org/x/crypto/ssh"
)

// ControlHandler is the HTTP side of the Go API, for tests in other processes:
// JSON in, JSON out, durations in nanoseconds. It has no authentication and
// belongs on loopback.
//
//	GET    /state            disks, files, pools, subvolumes, exports
//	GET    /stats  /log      counters; the commands received
//	GET    /settings         PATCH /settings with the fields to change
//	GET    /host-key         POST /host-key makes a new one
//	POST   /pools            a Pool
//	POST   /pools/{name}/fill, /pools/{name}/used?bytes=N
//	POST   /disks            properties by name
//	POST   /files            {"name":…,"size":…}; type directory for one
//	GET    /faults           POST /faults a Fault, DELETE /faults all of them
//	POST   /faults/{id}/release    DELETE /faults/{id}
//	POST   /cut /down /up    POST /reboot?pause=5s
//	POST   /run              a script as a JSON string, its output back
func (s *Server) ControlHandler() http.Handler {
	m := http.NewServeMux()
	s.routeState(m)
	s.routeFaults(m)
	do := func(pattern string, f func(*http.Request) error) {
		m.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { answer(w, struct{}{}, f(r)) })
	}
	do("POST /cut", func(*http.Request) error { s.CutAll(); return nil })
	do("POST /down", func(*http.Request) error { return s.Down() })
	do("POST /up", func(*http.Request) error { return s.Up() })
	do("POST /reboot", func(r *http.Request) error {
		pause, err := time.ParseDuration(r.FormValue("pause"))
		if err != nil {
			return err
		}
		return s.Reboot(pause)
	})
	do("POST /pools/{name}/fill", func(r *http.Request) error { return s.FillPool(r.PathValue("name")) })
	do("POST /pools/{name}/used", func(r *http.Request) error {
		n, err := strconv.ParseInt(r.FormValue("bytes"), 10, 64)
		if err != nil {
			return err
		}
		return s.SetPoolUsed(r.PathValue("name"), n)
	})
	return m
}

func (s *Server) routeState(m *http.ServeMux) {
	m.HandleFunc("GET /state", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{
			"disks": s.Disks(), "files": s.Files(), "pools": s.Pools(), "subvolumes": s.Subvolumes(), "exports": s.Exports(),
		}, nil)
	})
	m.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) { answer(w, s.Stats(), nil) })
	m.HandleFunc("GET /log", func(w http.ResponseWriter, _ *http.Request) { answer(w, s.Log(), nil) })
	m.HandleFunc("GET /settings", func(w http.ResponseWriter, _ *http.Request) { answer(w, s.Settings(), nil) })
	m.HandleFunc("PATCH /settings", func(w http.ResponseWriter, r *http.Request) {
		var raw json.RawMessage
		err := decode(r, &raw)
		if err == nil {
			probe := s.Settings()
			err = json.Unmarshal(raw, &probe)
		}
		if err == nil {
			s.Configure(func(set *Settings) { err = json.Unmarshal(raw, set) })
		}
		answer(w, s.Settings(), err)
	})
	m.HandleFunc("GET /host-key", func(w http.ResponseWriter, _ *http.Request) { answer(w, authorized(s.HostKey()), nil) })
	m.HandleFunc("POST /host-key", func(w http.ResponseWriter, _ *http.Request) {
		key, err := s.RotateHostKey()
		if err != nil {
			answer(w, nil, err)
			return
		}
		answer(w, authorized(key), nil)
	})
	m.HandleFunc("POST /pools", func(w http.ResponseWriter, r *http.Request) {
		var p Pool
		err := decode(r, &p)
		if err == nil {
			err = s.AddPool(p)
		}
		answer(w, struct{}{}, err)
	})
	m.HandleFunc("POST /disks", func(w http.ResponseWriter, r *http.Request) {
		var props map[string]string
		err := decode(r, &props)
		id := ""
		if err == nil {
			id, err = s.AddDisk(props)
		}
		answer(w, map[string]string{"id": id}, err)
	})
	m.HandleFunc("POST /files", func(w http.ResponseWriter, r *http.Request) {
		var f File
		err := decode(r, &f)
		switch {
		case err != nil:
		case f.Type == "directory":
			err = s.AddDirectory(f.Name)
		default:
			err = s.AddFile(f.Name, f.Size)
		}
		answer(w, struct{}{}, err)
	})
	m.HandleFunc("POST /run", func(w http.ResponseWriter, r *http.Request) {
		var script string
		err := decode(r, &script)
		out := ""
		if err == nil {
			out, err = s.Run(r.Context(), script)
		}
		answer(w, map[string]string{"output": out}, err)
	})
}

func (s *Server) routeFaults(m *http.ServeMux) {
	m.HandleFunc("GET /faults", func(w http.ResponseWriter, _ *http.Request) {
		list := []map[string]any{}
		for _, in := range s.Faults() {
			list = append(list, in.view())
		}
		answer(w, list, nil)
	})
	m.HandleFunc("POST /faults", func(w http.ResponseWriter, r *http.Request) {
		var f Fault
		if err := decode(r, &f); err != nil {
			answer(w, nil, err)
			return
		}
		in, err := s.Inject(f)
		if err != nil {
			answer(w, nil, err)
			return
		}
		answer(w, in.view(), nil)
	})
	m.HandleFunc("DELETE /faults", func(w http.ResponseWriter, _ *http.Request) {
		s.ClearFaults()
		answer(w, struct{}{}, nil)
	})
	one := func(pattern string, act func(*Injection)) {
		m.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			for _, in := range s.Faults() {
				if strconv.Itoa(in.ID) == r.PathValue("id") {
					act(in)
					answer(w, in.view(), nil)
					return
				}
			}
			answer(w, nil, errors.New("no such fault"))
		})
	}
	one("POST /faults/{id}/release", (*Injection).Release)
	one("DELETE /faults/{id}", (*Injection).Remove)
}

func (in *Injection) view() map[string]any {
	return map[string]any{"id": in.ID, "fault": in.Fault, "hits": in.Hits()}
}

func authorized(key gossh.PublicKey) map[string]string {
	return map[string]string{
		"authorized":  string(gossh.MarshalAuthorizedKey(key)),
		"fingerprint": gossh.FingerprintSHA256(key),
	}
}

func decode(r *http.Request, into any) error {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	return dec.Decode(into)
}

func answer(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		v = map[string]string{"error": err.Error()}
	}
	_ = json.NewEncoder(w).Encode(v) // the caller has gone if this fails
}
