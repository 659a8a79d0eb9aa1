package csi_test

import (
	"path"
	"regexp"
	"strings"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
	client "git.srvlab.io/whiskey/rds-csi-operator/rds/routeros"
	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
)

// skeleton takes every quoted word and every number out of a command. The words are
// found with the simulator's own lexer; ok is false if one of them does not read back
// as what Quote would spell, so that something in it is interpreted.
func skeleton(command string) (bare string, words []string, ok bool) {
	var b strings.Builder
next:
	for i := 0; i < len(command); i++ {
		if command[i] != '"' {
			b.WriteByte(command[i])
			continue
		}
		for end := i + 1; end < len(command); end++ {
			if command[end] != '"' {
				continue
			}
			if word, whole := routeros.Unquote(command[i : end+1]); whole {
				if client.Quote(word) != command[i:end+1] {
					return "", nil, false
				}
				words = append(words, word)
				b.WriteString(`""`)
				i = end
				continue next
			}
		}
		return "", nil, false
	}
	return numbers.ReplaceAllString(b.String(), "0"), words, true
}

var numbers = regexp.MustCompile(`[0-9]+`)

// attack is what a stranger may choose of a volume's requests.
type attack struct{ name, key, value, handle, node, secret string }

// life sends every request of the Controller service with what was chosen.
func (a attack) life(t *testing.T, e *env) (answers []string) {
	ctx := t.Context()
	note := func(_ proto.Message, err error) {
		if err != nil {
			answers = append(answers, err.Error())
		}
	}
	text := func(s string) string { return strings.ToValidUTF8(s, "?") } // as gRPC insists
	parameters := map[string]string{text(a.key): text(a.value)}
	secrets := map[string]string{text(a.key): text(a.secret)}
	created, err := e.CreateVolume(ctx, &spec.CreateVolumeRequest{
		Name: text(a.name), Parameters: parameters, Secrets: secrets, VolumeCapabilities: []*spec.VolumeCapability{rwxBlock},
	})
	note(created, err)
	for _, handle := range []string{text(a.handle), created.GetVolume().GetVolumeId()} {
		note(e.ControllerPublishVolume(ctx, &spec.ControllerPublishVolumeRequest{
			VolumeId: handle, NodeId: text(a.node), VolumeCapability: rwxBlock, VolumeContext: parameters, Secrets: secrets,
		}))
		note(e.ControllerExpandVolume(ctx, &spec.ControllerExpandVolumeRequest{
			VolumeId: handle, CapacityRange: &spec.CapacityRange{RequiredBytes: 2 * gib}, Secrets: secrets,
		}))
		note(e.ControllerGetVolume(ctx, &spec.ControllerGetVolumeRequest{VolumeId: handle}))
		note(e.ValidateVolumeCapabilities(ctx, &spec.ValidateVolumeCapabilitiesRequest{
			VolumeId: handle, VolumeContext: parameters, Parameters: parameters, Secrets: secrets, VolumeCapabilities: []*spec.VolumeCapability{rwxBlock},
		}))
		note(e.ControllerUnpublishVolume(ctx, &spec.ControllerUnpublishVolumeRequest{VolumeId: handle, NodeId: text(a.node), Secrets: secrets}))
		note(e.DeleteVolume(ctx, &spec.DeleteVolumeRequest{VolumeId: handle, Secrets: secrets}))
	}
	note(e.GetCapacity(ctx, &spec.GetCapacityRequest{Parameters: parameters}))
	return answers
}

// FuzzInjection: whatever is chosen, the array is sent the same few commands, with
// other words in quotes, and no secret.
func FuzzInjection(f *testing.F) {
	for _, s := range []string{`"`, `" ; /disk/remove [find]; "`, `$a`, `\`, "\n/file/remove [find]", `[:put 1]`, "pvc-ü", "", strings.Repeat("x", 300), "../../etc"} {
		f.Add(s, "dualAttach", "Any", "pvc-a"+s, "node-a"+s, "hunter2-"+s)
		f.Add(pvName, "array"+s, s, s, s, s)
		f.Add(pvName, "csi.storage.k8s.io/pvc/name", s, "pvc-a.main"+s, "node-a", s)
	}
	server, array := simulate(f)
	e := serve(f, map[string]rds.Array{"main": array}, []string{"main"}, nil)
	const marker = "5ecret!"
	known := map[string]bool{}
	last := 0 // of the log
	commands := func() (fresh []string) {
		for _, c := range server.Log() {
			if c.Seq > last {
				fresh, last = append(fresh, c.Text), c.Seq
			}
		}
		return fresh
	}
	learned := false
	f.Fuzz(func(t *testing.T, name, key, value, handle, node, secret string) {
		if !learned { // what harmless requests send
			learned = true
			for _, good := range []attack{
				{name: pvName, key: "dualAttach", value: "Any", handle: "pvc-other", node: "node-a"},
				{name: pvName, key: "dualAttach", value: "Any", handle: "pvc-other.main", node: "node-a"},
			} {
				good.life(t, e)
			}
			harmless := commands()
			if len(harmless) < 10 {
				t.Fatalf("harmless requests sent %d commands only", len(harmless))
			}
			for _, command := range harmless {
				bare, _, ok := skeleton(command)
				if !ok {
					t.Fatalf("not well quoted: %s", command)
				}
				known[bare] = true
			}
		}
		// The cluster knows every node, or few names would get beyond it.
		e.cluster.mu.Lock()
		e.cluster.nodes = []string{"node-a", strings.ToValidUTF8(node, "?")}
		e.cluster.mu.Unlock()
		answers := attack{name, key, value, handle, node, marker + secret}.life(t, e)
		for _, command := range commands() {
			bare, words, ok := skeleton(command)
			if !ok || !known[bare] {
				t.Errorf("a command like no other: %s", command)
			}
			answers = append(answers, words...)
		}
		for _, told := range answers {
			if strings.Contains(told, marker) {
				t.Errorf("the secret is told: %s", told)
			}
		}
		if n := len(server.Disks()); n != 1 {
			t.Fatalf("%d disks are left, of which the pool is one", n)
		}
	})
}

// FuzzForeignPath: a disk whose image is not below the base path is never changed,
// whatever its slot.
func FuzzForeignPath(f *testing.F) {
	for _, p := range []string{"raid10/vm.img", "raid10/k8s/../vm.img", "raid10/k8s-old/vm.img", "/raid10/k8s/./vm.img", "raid10/k8s//vm.img", "raid10/k8s", ""} {
		f.Add(p)
	}
	server, array := simulate(f)
	e := serve(f, map[string]rds.Array{"main": array}, []string{"main"}, nil)
	const slot = "pvc-foreign"
	f.Fuzz(func(t *testing.T, file string) {
		file = strings.TrimPrefix(strings.ToValidUTF8(file, "?"), "/")
		if strings.HasPrefix(path.Clean("/"+file), "/raid10/k8s/") && path.Clean(file) == file {
			return // it is below the base path: no attack
		}
		_, err := server.AddDisk(map[string]string{"type": "file", "slot": slot, "file-path": "/" + file, "file-size": "1073741824", "comment": "rds1 g0"})
		if err != nil {
			return // no array has such a disk: no attack
		}
		before, _ := server.Disk(slot)
		answers := attack{name: pvName, key: "dualAttach", value: "Any", handle: slot, node: "node-a"}.life(t, e)
		if after, ok := server.Disk(slot); !ok || after != before {
			t.Errorf("disk %+v became %+v; answers %q", before, after, answers)
		}
		if _, err := server.Run(t.Context(), `/disk/remove [find where slot="`+slot+`"]`); err != nil {
			t.Fatal(err)
		}
	})
}
