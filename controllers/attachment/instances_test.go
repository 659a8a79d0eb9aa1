package attachment

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/gather"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/unexplained"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/vmicondition"
)

// speaker keeps what VMIs were made to say.
type speaker struct {
	said []vmicondition.Condition
	err  error
}

func (s *speaker) Say(_ context.Context, _ *kubevirtv1.VirtualMachineInstance, c vmicondition.Condition) (bool, time.Time, error) {
	s.said = append(s.said, c)
	return false, noon.Add(time.Minute), s.err
}

func (s *speaker) Forbidden(vmicondition.Type) []types.NamespacedName { return nil }

func (s *speaker) Forget(types.NamespacedName, vmicondition.Type) {}

func running() *kubevirtv1.VirtualMachineInstance {
	vmi := &kubevirtv1.VirtualMachineInstance{}
	vmi.Status.Phase = kubevirtv1.Running
	return vmi
}

// TestSpeak: a VMI says what stands about any of its volumes, once all of them were
// looked at.
func TestSpeak(t *testing.T) {
	x, w := begin(newStore(), noon), &speaker{}
	r := x.Instances(w)
	speak := func(what string, vmi *kubevirtv1.VirtualMachineInstance, want int, volumes ...string) {
		t.Helper()
		if _, err := r.speak(t.Context(), vmi, volumes); err != nil {
			t.Fatal(err)
		}
		if len(w.said) != want {
			t.Fatalf("%s: said %v", what, w.said)
		}
	}
	other := func(v *gather.Volume) { alone(v); v.Name = "pv-other" }
	told := running()
	told.Status.Conditions = []kubevirtv1.VirtualMachineInstanceCondition{{Type: unexplained.ConditionInstance, Status: corev1.ConditionTrue}}
	speak("before the first look, what an earlier process said stands", told, 0, "pv-disk", "pv-other")
	x.look(t)
	speak("as before one at the other volume", told, 0, "pv-disk", "pv-other")
	x.look(t, other)
	speak("it has not lasted yet", running(), 0, "pv-disk", "pv-other")
	x.clock.SetTime(noon.Add(limits.Settle))
	x.look(t)
	speak("it has", running(), 1, "pv-disk", "pv-other")
	speak("it is said", told, 1, "pv-disk", "pv-other")
	speak("the VMI uses another volume only", told, 2, "pv-other")
	x.look(t, alone)
	speak("over", told, 3, "pv-disk", "pv-other")
	for i, status := range []corev1.ConditionStatus{corev1.ConditionTrue, corev1.ConditionFalse, corev1.ConditionFalse} {
		if c := w.said[i]; c.Type != vmicondition.StorageDualAttachUnexplained || c.Status != status {
			t.Errorf("said %+v, want %s", c, status)
		}
	}
	for _, part := range []string{"claim disk", "node-a: pod x", "node-b: pod y"} {
		if !strings.Contains(w.said[0].Message, part) {
			t.Errorf("%q is not in: %s", part, w.said[0].Message)
		}
	}
	w.err = errors.New("no answer")
	if again, err := r.speak(t.Context(), told, nil); !errors.Is(err, w.err) || !again.Equal(noon.Add(time.Minute)) {
		t.Errorf("again at %s, err = %v", again, err)
	}
}

// TestSameName: the decision and the writer speak of the same condition.
func TestSameName(t *testing.T) {
	if got := vmicondition.StorageDualAttachUnexplained.String(); got != string(unexplained.ConditionInstance) {
		t.Errorf("the writer writes %s", got)
	}
}

// TestWakeups: those VMIs are looked at for which a look at a volume may be news.
func TestWakeups(t *testing.T) {
	x := begin(newStore(), noon)
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
	defer queue.ShutDown()
	x.look(t) // nobody listens yet
	x.table.forget("pv-disk")
	if err := x.table.wakeups.Start(t.Context(), queue); err != nil {
		t.Fatal(err)
	}
	used := func(names ...string) func(*gather.Volume) {
		return func(v *gather.Volume) {
			for _, name := range names {
				v.Instances = append(v.Instances, types.NamespacedName{Namespace: "shop", Name: name})
			}
		}
	}
	woken := func(what string, want ...string) {
		t.Helper()
		var got []string
		for queue.Len() > 0 {
			request, _ := queue.Get()
			queue.Done(request)
			got = append(got, request.Name)
		}
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	x.look(t, used("web"))
	woken("the first look", "web")
	x.look(t, used("web"))
	woken("nothing new")
	x.clock.SetTime(noon.Add(limits.Settle))
	x.look(t, used("web"))
	woken("said", "web")
	x.look(t, used("db"))
	woken("another VM's pods", "db", "web")
	x.look(t, used("db"), alone)
	woken("over", "db")
	x.table.forget("pv-disk")
	woken("gone", "db")
}
