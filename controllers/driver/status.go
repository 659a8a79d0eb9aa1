package driver

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/driver/v1alpha1"
)

// observation is what one look at the cluster found.
type observation struct {
	problems         []string // for an administrator to mend
	retry            error    // of the API server: the same again may work
	controller, node rollout
	arrays           []v1alpha1.ArrayStatus
	grant            grant
	waits            []string      // the attachments that a deletion waits for
	again            time.Duration // when to look again although nothing changes
}

type grant struct {
	granted, known bool
	message        string
}

// fail keeps an error as a problem; one that an administrator must mend is not retried,
// but looked at again before long where mending it may go unseen.
func (o *observation) fail(err error) {
	o.problems = append(o.problems, err.Error())
	var foreign *foreignError
	var key *missingKeyError
	switch {
	case errors.As(err, &foreign):
		o.lookWithin(servedAgain)
	case !errors.As(err, &key):
		o.retry = errors.Join(o.retry, err)
	}
}

// lookWithin asks for another look, if none is due sooner.
func (o *observation) lookWithin(d time.Duration) { o.again = min(o.again, d) }

// rollout is how far the pods of a workload are.
type rollout struct {
	Name                   string
	Wanted, Ready, Updated int32
	Seen                   bool // the status is about the newest spec
}

func (r rollout) available() bool   { return r.Seen && r.Ready >= min(r.Wanted, 1) }
func (r rollout) progressing() bool { return !r.Seen || r.Updated < r.Wanted || r.Ready < r.Wanted }
func (r rollout) String() string {
	if !r.Seen {
		return r.Name + " is being made"
	}
	return fmt.Sprintf("%s: %d of %d pods ready, %d up to date", r.Name, r.Ready, r.Wanted, r.Updated)
}

// decideStatus says in the status what the observation means. It is pure but for the
// times of the conditions' changes.
func decideStatus(d *v1alpha1.RDSDriver, o observation) {
	s := &d.Status
	s.ObservedGeneration = d.Generation
	s.Arrays = o.arrays
	reachable := 0
	var unreachable []string
	for _, a := range o.arrays {
		if a.Reachable {
			reachable++
		} else {
			unreachable = append(unreachable, "array "+a.Name+" does not answer: "+a.Message)
		}
	}
	s.ArraysReachable = fmt.Sprintf("%d/%d", reachable, len(o.arrays))
	set := func(kind string, status metav1.ConditionStatus, reason, message string) {
		meta.SetStatusCondition(&s.Conditions, metav1.Condition{
			Type: kind, Status: status, Reason: reason, Message: message, ObservedGeneration: d.Generation,
		})
	}
	setAvailable(set, o, reachable, unreachable)
	setProgressing(set, o)
	switch problems := slices.Concat(o.problems, unreachable); {
	case len(o.waits) > 0:
		set(v1alpha1.ConditionDegraded, metav1.ConditionTrue, "VolumesAttached",
			fmt.Sprintf("the deletion waits until no volume is attached, as nothing could detach them any more: %s", some(o.waits)))
	case len(problems) > 0:
		reason := "Problems"
		if len(o.problems) == 0 {
			reason = "ArrayUnreachable"
		}
		set(v1alpha1.ConditionDegraded, metav1.ConditionTrue, reason, strings.Join(problems, "; "))
	default:
		set(v1alpha1.ConditionDegraded, metav1.ConditionFalse, "AsExpected", "")
	}
	switch {
	case !o.grant.known:
		set(v1alpha1.ConditionVMIWritable, metav1.ConditionUnknown, "NotChecked", o.grant.message)
	case o.grant.granted:
		set(v1alpha1.ConditionVMIWritable, metav1.ConditionTrue, "Granted", o.grant.message)
	default:
		set(v1alpha1.ConditionVMIWritable, metav1.ConditionFalse, "NotGranted", o.grant.message)
	}
}

type setter func(kind string, status metav1.ConditionStatus, reason, message string)

// setAvailable: volumes can be used when the plugin runs and some array answers. A
// cluster without nodes for the plugin has nothing that could use a volume.
func setAvailable(set setter, o observation, reachable int, unreachable []string) {
	switch {
	case !o.controller.available():
		set(v1alpha1.ConditionAvailable, metav1.ConditionFalse, "ControllerNotReady", o.controller.String())
	case !o.node.available():
		set(v1alpha1.ConditionAvailable, metav1.ConditionFalse, "NodesNotReady", o.node.String())
	case reachable == 0:
		set(v1alpha1.ConditionAvailable, metav1.ConditionFalse, "ArrayUnreachable", strings.Join(unreachable, "; "))
	default:
		set(v1alpha1.ConditionAvailable, metav1.ConditionTrue, "Ready", fmt.Sprintf("volumes can be used on %d nodes", o.node.Ready))
	}
}

func setProgressing(set setter, o observation) {
	switch {
	case o.controller.progressing():
		set(v1alpha1.ConditionProgressing, metav1.ConditionTrue, "RollingOut", o.controller.String())
	case o.node.progressing():
		set(v1alpha1.ConditionProgressing, metav1.ConditionTrue, "RollingOut", o.node.String())
	default:
		set(v1alpha1.ConditionProgressing, metav1.ConditionFalse, "RolledOut", "")
	}
}

// some names a few of many.
func some(all []string) string {
	const most = 5
	if len(all) <= most {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:most], ", "), len(all)-most)
}

func equalStatus(a, b *v1alpha1.RDSDriverStatus) bool { return equality.Semantic.DeepEqual(a, b) }

// ownedByUs reports whether an entry of managed fields is ours.
func ownedByUs(f metav1.ManagedFieldsEntry) bool { return f.Manager == fieldOwner }
