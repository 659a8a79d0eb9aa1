package gather

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/unexplained"
)

// The StorageClass parameters that the plugin hands on to the volume's attributes.
const (
	timeoutAttribute = "migrationTimeoutSeconds" // whole seconds, 30 to 3600
	sharingAttribute = "dualAttach"
	sharingAny       = "Any" // every other value is a live migration's
)

// Views is where the last views of the arrays are kept.
type Views interface {
	// Told is what the array was told about the volume of a handle. The ledger is
	// unknown when the array's view is missing or stale.
	Told(handle string, now time.Time) unexplained.Told
}

// Gatherer reads the cluster's cache and the arrays' last views.
type Gatherer struct {
	Client client.Reader
	Driver string // the CSI driver's name
	Views  Views
}

// Known is what was learnt about a migration while it could be seen.
type Known struct {
	// Migration is the VMIM as last seen or as we last wrote it.
	Migration *kubevirtv1.VirtualMachineInstanceMigration
	// InstanceUID is that of the migration's VMI. Another one of its name may follow.
	InstanceUID types.UID
	VanishedAt  time.Time
	Lost        bool // Migration is a stand-in, see dualattach.Lost
	Source      dualattach.Side
	Target      dualattach.Side
	Claims      []Claim
	// Copied: it copies blocks to other claims, as was seen while it was under way.
	Copied bool
}

// Claim is a claim on a shared volume of ours.
type Claim struct {
	Name    string
	UID     types.UID
	PV      string
	Handle  string
	Timeout time.Duration
}

// Instance is a VMI and what belongs to it.
type Instance struct {
	Key        types.NamespacedName
	VMI        *kubevirtv1.VirtualMachineInstance // nil when gone
	Migrations []*kubevirtv1.VirtualMachineInstanceMigration
	pods       []corev1.Pod // launcher pods
}

// Instance reads a VMI, its migrations, oldest first, and its launcher pods.
func (g *Gatherer) Instance(ctx context.Context, key types.NamespacedName) (*Instance, error) {
	in := &Instance{Key: key, VMI: &kubevirtv1.VirtualMachineInstance{}}
	switch err := g.Client.Get(ctx, key, in.VMI); {
	case apierrors.IsNotFound(err):
		in.VMI = nil
	case err != nil:
		return nil, fmt.Errorf("read VMI %s: %w", key, err)
	}
	var migrations kubevirtv1.VirtualMachineInstanceMigrationList
	if err := g.Client.List(ctx, &migrations, client.InNamespace(key.Namespace), client.MatchingFields{byInstance: key.Name}); err != nil {
		return nil, fmt.Errorf("list the migrations of VMI %s: %w", key, err)
	}
	for i := range migrations.Items {
		in.Migrations = append(in.Migrations, &migrations.Items[i])
	}
	slices.SortFunc(in.Migrations, olderFirst)
	var pods corev1.PodList
	if err := g.Client.List(ctx, &pods, client.InNamespace(key.Namespace), client.MatchingFields{byInstance: key.Name}); err != nil {
		return nil, fmt.Errorf("list the pods of VMI %s: %w", key, err)
	}
	in.pods = pods.Items
	return in, nil
}

func olderFirst(a, b *kubevirtv1.VirtualMachineInstanceMigration) int {
	if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c != 0 {
		return c
	}
	return strings.Compare(string(a.UID), string(b.UID))
}

// Snapshot completes what is known of a migration and makes the snapshot of it.
// The caller sets Now, Since and Limits.
func (g *Gatherer) Snapshot(ctx context.Context, in *Instance, known *Known, now time.Time) (dualattach.Snapshot, error) {
	source, target := in.launchers(known)
	in.sides(known, source, target)
	in.own(known, target)
	s := dualattach.Snapshot{
		Now: now, Migration: known.Migration, VanishedAt: known.VanishedAt, Lost: known.Lost, Instance: in.VMI,
		Source: known.Source, Target: known.Target, SuccessorTarget: in.successorTarget(known.Migration), Copied: known.Copied,
	}
	if in.VMI != nil && in.VMI.UID != known.InstanceUID {
		// The VM was started anew: what its VMI says is not about this migration.
		s.Instance, s.SuccessorTarget = nil, cmp.Or(s.SuccessorTarget, in.VMI.Status.NodeName)
	}
	known.Copied = s.CopiesBlocks()
	err := g.claims(ctx, &s, known, source, target)
	if err != nil {
		return s, err
	}
	if s.Source.Ready, err = g.nodeReady(ctx, s.Source.Node); err != nil {
		return s, err
	}
	if s.Target.Ready, err = g.nodeReady(ctx, s.Target.Node); err != nil {
		return s, err
	}
	for _, claim := range known.Claims {
		volume, err := g.sharedVolume(ctx, in.Key.Namespace, claim, now)
		if err != nil {
			return s, err
		}
		s.Volumes = append(s.Volumes, volume)
	}
	return s, nil
}

// claims refreshes the shared claims while the migration can still change them,
// from the source's pods or, once those are gone, the target's.
func (g *Gatherer) claims(ctx context.Context, s *dualattach.Snapshot, known *Known, source, target *corev1.Pod) error {
	pod := source
	if pod == nil && len(known.Claims) == 0 {
		pod = target
	}
	if pod == nil || (len(known.Claims) > 0 && known.Migration.IsFinal()) {
		return nil
	}
	names := claimsOf(pod)
	var hotplug corev1.PodList
	if err := g.Client.List(ctx, &hotplug, client.InNamespace(pod.Namespace), client.MatchingFields{byOwnerUID: string(pod.UID)}); err != nil {
		return fmt.Errorf("list the hotplug pods of %s: %w", pod.Name, err)
	}
	for i := range hotplug.Items {
		if !pluggedLater(s, &hotplug.Items[i]) {
			names = append(names, claimsOf(&hotplug.Items[i])...)
		}
	}
	slices.Sort(names)
	var claims []Claim
	for _, name := range slices.Compact(names) {
		claim, ours, err := g.sharedClaim(ctx, types.NamespacedName{Namespace: pod.Namespace, Name: name})
		if err != nil {
			return err
		}
		if ours {
			claims = append(claims, claim)
		}
	}
	known.Claims = claims
	return nil
}

// pluggedLater reports a hotplug pod that was made after the end of a migration in
// which nothing of ours took part so far: KubeVirt keeps final VMIMs for long. Of one
// that we wrote about it may tell: KubeVirt makes the pod anew for each disk.
func pluggedLater(s *dualattach.Snapshot, pod *corev1.Pod) bool {
	ended := s.EndedAt()
	return s.Migration.IsFinal() && !ended.IsZero() && pod.CreationTimestamp.After(ended) && !dualattach.Started(s.Migration)
}

// sharedClaim reads a claim. ours is false unless it is bound to a volume of our
// driver that several nodes may hold.
func (g *Gatherer) sharedClaim(ctx context.Context, key types.NamespacedName) (claim Claim, ours bool, err error) {
	var pvc corev1.PersistentVolumeClaim
	if err := g.Client.Get(ctx, key, &pvc); err != nil {
		return Claim{}, false, ignoreNotFound(err, "read claim %s", key)
	}
	if pvc.Spec.VolumeName == "" {
		return Claim{}, false, nil
	}
	var pv corev1.PersistentVolume
	if err := g.Client.Get(ctx, types.NamespacedName{Name: pvc.Spec.VolumeName}, &pv); err != nil {
		return Claim{}, false, ignoreNotFound(err, "read volume %s of claim %s", pvc.Spec.VolumeName, key)
	}
	csi := pv.Spec.CSI
	if csi == nil || csi.Driver != g.Driver || !slices.Contains(pv.Spec.AccessModes, corev1.ReadWriteMany) {
		return Claim{}, false, nil
	}
	return Claim{Name: pvc.Name, UID: pvc.UID, PV: pv.Name, Handle: csi.VolumeHandle, Timeout: storageClassTimeout(csi.VolumeAttributes)}, true, nil
}

func storageClassTimeout(attributes map[string]string) time.Duration {
	seconds, err := strconv.Atoi(attributes[timeoutAttribute])
	if err != nil || seconds <= 0 {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

// sharedVolume reads a claim's attachments and ledger as they are now.
func (g *Gatherer) sharedVolume(ctx context.Context, namespace string, claim Claim, now time.Time) (dualattach.Volume, error) {
	v := dualattach.Volume{Claim: claim.Name, PV: claim.PV, Timeout: claim.Timeout, Ledger: g.Views.Told(claim.Handle, now).Ledger}
	var pv corev1.PersistentVolume
	switch err := g.Client.Get(ctx, types.NamespacedName{Name: claim.PV}, &pv); {
	case apierrors.IsNotFound(err):
		v.PV = ""
	case err != nil:
		return v, fmt.Errorf("read volume %s of claim %s/%s: %w", claim.PV, namespace, claim.Name, err)
	}
	var attachments storagev1.VolumeAttachmentList
	if err := g.Client.List(ctx, &attachments, client.MatchingFields{byPV: claim.PV}); err != nil {
		return v, fmt.Errorf("list the attachments of volume %s: %w", claim.PV, err)
	}
	for i := range attachments.Items {
		v.Attachments = append(v.Attachments, attachmentOf(&attachments.Items[i]))
	}
	return v, nil
}

func attachmentOf(va *storagev1.VolumeAttachment) dualattach.Attachment {
	a := dualattach.Attachment{Node: va.Spec.NodeName, Attached: va.Status.Attached, Created: va.CreationTimestamp.Time}
	switch {
	case va.Status.DetachError != nil:
		a.Error, a.Leaving = va.Status.DetachError.Message, true
	case va.Status.AttachError != nil:
		a.Error = va.Status.AttachError.Message
	}
	return a
}

// nodeReady reports whether the node exists and is Ready.
func (g *Gatherer) nodeReady(ctx context.Context, name string) (bool, error) {
	if name == "" {
		return false, nil
	}
	var node corev1.Node
	if err := g.Client.Get(ctx, types.NamespacedName{Name: name}, &node); err != nil {
		return false, ignoreNotFound(err, "read node %s", name)
	}
	return NodeReady(&node), nil
}

// NodeReady reads a node's Ready condition.
func NodeReady(node *corev1.Node) bool {
	return slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

func ignoreNotFound(err error, format string, args ...any) error {
	if err == nil || apierrors.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf(format+": %w", append(args, err)...)
}
