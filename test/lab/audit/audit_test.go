package audit

import (
	"os"
	"path/filepath"
	"testing"
)

const recorded = `{"stage":"ResponseComplete","verb":"list","requestURI":"/api/v1/pods","user":{"username":"a"},"objectRef":{"resource":"pods"},"responseStatus":{"code":200}}
{"stage":"ResponseStarted","verb":"watch","requestURI":"/api/v1/pods?sendInitialEvents=true&watch=true","user":{"username":"a"},"objectRef":{"resource":"pods"},"responseStatus":{"code":200}}
{"stage":"ResponseComplete","verb":"watch","requestURI":"/api/v1/pods?sendInitialEvents=true&watch=true","user":{"username":"a"},"objectRef":{"resource":"pods"},"responseStatus":{"code":200}}
{"stage":"ResponseComplete","verb":"patch","user":{"username":"b"},"impersonatedUser":{"username":"c"},"objectRef":{"resource":"pods","subresource":"status","namespace":"ns","name":"p"},"responseStatus":{"code":422}}
`

func TestReadAndFilter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	half := `{"stage":"Respo`
	if err := os.WriteFile(path, []byte(recorded+half), 0o600); err != nil {
		t.Fatal(err)
	}
	events, offset, err := Read(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	if offset != int64(len(recorded)) {
		t.Errorf("offset %d, want %d: a line being written is for the next time", offset, len(recorded))
	}
	if end, err := End(path); end != offset || err != nil {
		t.Errorf("the log ends at %d, want %d; %v", end, offset, err)
	}
	for name, tc := range map[string]struct {
		filters []Filter
		want    int
	}{
		"all, a watch once":     {nil, 3},
		"lists of either kind":  {[]Filter{Lists()}, 2},
		"a user's":              {[]Filter{User("a")}, 2},
		"an impersonator's":     {[]Filter{User("b"), As("c")}, 1},
		"failed writes":         {[]Filter{Writes(), Failures()}, 1},
		"of a subresource":      {[]Filter{Resource("pods/status")}, 1},
		"of an object":          {[]Filter{Named("ns", "p"), Verb("patch", "update")}, 1},
		"of a resource, no sub": {[]Filter{Resource("pods"), Verb("patch")}, 0},
	} {
		if got := events.Where(tc.filters...); len(got) != tc.want {
			t.Errorf("%s: %d events, want %d:\n%s", name, len(got), tc.want, got)
		}
	}
	if counts := events.CountBy(Event.Resource); counts["pods"] != 2 || counts["pods/status"] != 1 {
		t.Errorf("counts: %v", counts)
	}
	more, _, err := Read(path, offset)
	if err != nil || len(more) != 0 {
		t.Errorf("after the end: %v, %v", more, err)
	}
	if none, _, err := Read(path+".none", 0); err != nil || len(none) != 0 {
		t.Errorf("no log yet: %v, %v", none, err)
	}
}
