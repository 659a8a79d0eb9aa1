package vmireport

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	testclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/event"
)

const (
	roleCommand        = "kubectl -n openshift-cnv create rolebinding rds-csi-operator-vmi-condition --clusterrole=rds-csi-operator-kubevirt-controller --serviceaccount=storage:rds-op"
	clusterRoleCommand = "kubectl create clusterrolebinding rds-csi-operator-vmi-condition --clusterrole=rds-csi-operator-vmi-condition --serviceaccount=storage:rds-op"
)

// TestRights: what is asked for, and the commands that grant it.
func TestRights(t *testing.T) {
	operator := account{user: "system:serviceaccount:storage:rds-op", namespace: "storage", name: "rds-op"}
	cases := map[string]struct {
		plain    bool
		me       account
		asked    []string
		commands []string
	}{
		"constrained": {false, operator, []string{
			"may impersonate:serviceaccount serviceaccounts.authentication.k8s.io openshift-cnv/kubevirt-controller",
			"may impersonate-on:serviceaccount:patch virtualmachineinstances.kubevirt.io /"},
			[]string{roleCommand, clusterRoleCommand}},
		"plain": {true, operator, []string{"may impersonate serviceaccounts. openshift-cnv/kubevirt-controller"}, []string{
			"kubectl -n openshift-cnv create role rds-csi-operator-plain-impersonation --verb=impersonate --resource=serviceaccounts --resource-name=kubevirt-controller",
			"kubectl -n openshift-cnv create rolebinding rds-csi-operator-plain-impersonation --role=rds-csi-operator-plain-impersonation --serviceaccount=storage:rds-op"}},
		"a user": {false, account{user: "jane"}, []string{
			"may impersonate:serviceaccount serviceaccounts.authentication.k8s.io openshift-cnv/kubevirt-controller",
			"may impersonate-on:serviceaccount:patch virtualmachineinstances.kubevirt.io /"}, []string{
			strings.Replace(roleCommand, "--serviceaccount=storage:rds-op", "--user=jane", 1),
			strings.Replace(clusterRoleCommand, "--serviceaccount=storage:rds-op", "--user=jane", 1)}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			a := newAPI()
			a.grant(false)
			a.denied["impersonate"] = true
			got, err := missing(t.Context(), a, rights(tc.plain, "openshift-cnv", tc.me))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.commands, got); diff != "" {
				t.Errorf("commands (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.asked, a.log); diff != "" {
				t.Errorf("asked (-want +got):\n%s", diff)
			}
		})
	}
}

// TestGrantTells: what is missing is told once, where administrators look, and again
// when it changes; who waits for the grant learns when it is there.
func TestGrantTells(t *testing.T) {
	a := newAPI()
	clock := testclock.NewFakeClock(noon)
	g := NewGrant(a, a, a, false, clock)
	granted := g.Granted()
	step := func(what string, prepare func(), wantGranted bool, on []string, parts ...string) {
		t.Helper()
		a.events = nil
		prepare()
		found := g.Check(t.Context())
		if found.granted != wantGranted {
			t.Errorf("%s: %+v", what, found)
		}
		if len(a.events) != len(on) {
			t.Fatalf("%s: events %q, want %d", what, a.events, len(on))
		}
		for i := range on {
			for _, part := range append(parts, on[i], "Warning VMIConditionNotGranted on ") {
				if !strings.Contains(a.events[i], part) {
					t.Errorf("%s: event %q, want %q in it", what, a.events[i], part)
				}
			}
		}
		if got := drained(granted); got != (wantGranted && len(on) == 0 && what != "still granted") {
			t.Errorf("%s: said to be granted: %t", what, got)
		}
	}
	account, kubevirt := "ServiceAccount storage/rds-op account-uid", "KubeVirt openshift-cnv/kv kv-uid"
	nothing := func() {}
	step("API server down", func() { a.down = true }, false, nil)
	step("no KubeVirt", func() { a.down, a.kubevirts = false, nil }, false, []string{account}, "no resource of kind KubeVirt")
	step("not granted", func() { a.kubevirts = []string{"openshift-cnv"}; a.grant(false) }, false, []string{account, kubevirt},
		roleCommand+"; "+clusterRoleCommand, "config/components/vmi-condition")
	step("still not", nothing, false, nil)
	step("half", func() { delete(a.denied, "impersonate:serviceaccount") }, false, []string{account, kubevirt}, clusterRoleCommand)
	if strings.Contains(a.events[0], roleCommand) {
		t.Errorf("a command that is not missing: %s", a.events[0])
	}
	step("granted", func() { a.grant(true) }, true, nil)
	step("still granted", nothing, true, nil)
	step("revoked", func() { a.grant(false) }, false, []string{account, kubevirt}, roleCommand)

	a.events = nil
	g.remind(t.Context())
	clock.Step(tellAgain)
	g.remind(t.Context())
	if len(a.events) != 2 {
		t.Errorf("reminded by %q", a.events)
	}
}

// TestRefused: an API server that refuses what its reviews allow is believed for a
// while, and the reason is no missing command; a missing grant explains a refusal.
func TestRefused(t *testing.T) {
	a := newAPI()
	clock := testclock.NewFakeClock(noon)
	g := NewGrant(a, a, a, false, clock)
	if !g.Check(t.Context()).granted {
		t.Fatal("not granted")
	}
	if found := g.wasRefused(t.Context()); found.granted || !strings.Contains(found.reason, "1.36") || !strings.Contains(found.reason, "--plain-impersonation") {
		t.Errorf("refused: %+v", found)
	}
	clock.Step(refusalStands - time.Second)
	if g.Check(t.Context()).granted {
		t.Error("tried again too soon")
	}
	clock.Step(time.Second)
	if !g.Check(t.Context()).granted {
		t.Error("never tried again")
	}
	a.grant(false)
	if found := g.wasRefused(t.Context()); !strings.Contains(found.reason, roleCommand) {
		t.Errorf("revoked: %+v", found)
	}
	a.grant(true)
	if !g.Check(t.Context()).granted {
		t.Error("the refusal outlives its reason")
	}
}

// TestTooOld: an API server that would ignore the verbs is not asked for them, as its
// reviews only tell that they are bound; it says what helps, and may be upgraded.
func TestTooOld(t *testing.T) {
	for version, tc := range map[string]struct{ plain, want bool }{
		"v1.30.0": {false, false}, "v1.35.4+k3s1": {false, false}, "v1.35.4-gke.100": {true, true},
		"v1.36.0": {false, true}, "v1.36.1+rke2r1": {false, true}, "v1.40.0-beta.1": {false, true}, "v2.0.0": {false, true}, "unknown": {false, false},
	} {
		a := newAPI()
		a.version = version
		g := NewGrant(a, a, a, tc.plain, testclock.NewFakeClock(noon))
		found := g.Check(t.Context())
		if found.granted != tc.want {
			t.Errorf("%s, plain %t: %+v", version, tc.plain, found)
		}
		if tc.want {
			continue
		}
		for _, part := range []string{version, "1.36", "--plain-impersonation"} {
			if !strings.Contains(found.reason, part) {
				t.Errorf("%q is not in: %s", part, found.reason)
			}
		}
		if !slices.Equal(a.log, []string{"version"}) || len(a.events) != 2 {
			t.Errorf("%s: asked %q, events %q", version, a.log, a.events)
		}
		a.version = "v1.36.0"
		if !g.Check(t.Context()).granted {
			t.Errorf("%s: it was upgraded", version)
		}
		a.log = nil
		if g.Check(t.Context()); slices.Contains(a.log, "version") {
			t.Errorf("asked again: %q", a.log)
		}
	}
}

// TestStart: it checks at once, slowly while granted, less so while not, and when told to.
func TestStart(t *testing.T) {
	a := newAPI()
	clock := testclock.NewFakeClock(noon)
	g := NewGrant(a, a, a, false, clock)
	granted := g.Granted()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error)
	go func() { done <- g.Start(ctx) }()
	waiting := func() {
		for !clock.HasWaiters() {
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Millisecond):
			}
		}
	}
	<-granted
	waiting()
	clock.Step(whileGranted - time.Second)
	if !clock.HasWaiters() {
		t.Error("checked too often")
	}
	a.grant(false)
	clock.Step(time.Second)
	waiting()
	if g.known(ctx).granted {
		t.Error("the slow check did not happen")
	}
	a.grant(true)
	clock.Step(whileMissing)
	<-granted
	waiting()
	a.grant(false)
	g.wasRefused(ctx)
	if g.known(ctx).granted {
		t.Error("a refusal is not looked into")
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func drained(c <-chan event.GenericEvent) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// TestWhere names the objects that bear the commands.
func TestWhere(t *testing.T) {
	a := newAPI()
	a.grant(false)
	g := NewGrant(a, a, a, false, testclock.NewFakeClock(noon))
	if got := g.where(); got != "the operator's log" {
		t.Errorf("before anything is known: %s", got)
	}
	g.Check(t.Context())
	if got := g.where(); got != "the events of ServiceAccount storage/rds-op and KubeVirt openshift-cnv/kv" {
		t.Error(got)
	}
	a.user = "jane"
	g = NewGrant(a, a, a, false, testclock.NewFakeClock(noon))
	g.Check(t.Context())
	if len(a.events) < 3 || !slices.ContainsFunc(a.events[2:], func(e string) bool { return strings.Contains(e, "--user=jane") }) {
		t.Errorf("a user's: %q", a.events)
	}
}
