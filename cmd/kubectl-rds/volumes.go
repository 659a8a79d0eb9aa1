package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/attachment"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/gather"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/unexplained"
	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// volume is who holds one, as the cluster says and as the array was told.
type volume struct {
	Metadata metadata `json:"metadata"` // the claim's
	PV       string   `json:"persistentVolume"`
	Array    string   `json:"array,omitempty"` // empty: the default one
	Slot     string   `json:"slot"`
	// ArrayKnown: the array has answered, and the disk bears a ledger.
	ArrayKnown bool `json:"arrayKnown"`
	// ArrayProblem says why not.
	ArrayProblem string    `json:"arrayProblem,omitempty"`
	Exported     *bool     `json:"exported,omitempty"` // nil: not known
	Holders      []holder  `json:"holders"`
	Findings     []finding `json:"findings,omitempty"`
}

// finding is something that is the matter with a volume.
type finding struct {
	Reason  string `json:"reason"` // of the operator's event
	Message string `json:"message"`
	// Announced: the operator has made the event. It does not speak of what may pass.
	Announced bool `json:"announced"`
}

// holder is a node that holds a volume by one word or the other.
type holder struct {
	Node string `json:"node"`
	// Attachment is the state of the VolumeAttachment: Attached, Attaching, Detaching;
	// empty where there is none.
	Attachment      string       `json:"attachment,omitempty"`
	AttachmentSince *metav1.Time `json:"attachmentSince,omitempty"` // its creation
	AttachmentError string       `json:"attachmentError,omitempty"`
	Told            bool         `json:"told"` // the ledger names the node
	ToldSince       *metav1.Time `json:"toldSince,omitempty"`
	Users           []user       `json:"users,omitempty"`
}

// user is who uses a volume on a node: a VM, or else a pod.
type user struct {
	Name    string `json:"name"`              // vmi/NAME or pod/NAME
	Leaving bool   `json:"leaving,omitempty"` // it is shutting down
}

func (u user) String() string {
	if u.Leaving {
		return u.Name + " (leaving)"
	}
	return u.Name
}

// line is one of the table: a volume on one node, or one that nobody holds.
type line struct {
	volume
	holder
	first bool
	now   time.Time
}

func volumeColumns(allNamespaces bool) []column[line] {
	columns := []column[line]{
		{"Claim", false, func(l line) string { return l.Metadata.Name }},
		{"Node", false, func(l line) string { return l.Node }},
		{"Cluster", false, line.cluster},
		{"Array", false, line.array},
		{"Used by", false, func(l line) string { return commas(l.users()) }},
		{"Finding", false, line.finding},
		{"Volume", true, func(l line) string { return l.PV }},
		{"Slot", true, func(l line) string { return l.Slot }},
		{"Export", true, line.export},
	}
	if allNamespaces {
		columns = append([]column[line]{{"Namespace", false, func(l line) string { return l.Metadata.Namespace }}}, columns...)
	}
	return columns
}

func (l line) cluster() string {
	if l.Attachment == "" {
		return ""
	}
	return strings.TrimSpace(l.Attachment + " " + ago(l.AttachmentSince.Time, l.now))
}

func (l line) users() []string {
	var names []string
	for _, u := range l.Users {
		names = append(names, u.String())
	}
	return names
}

// array is what the array says of the node; "?" is not known, which is not "no".
func (l line) array() string {
	switch {
	case !l.ArrayKnown:
		return "?"
	case l.Told:
		return strings.TrimSpace("Told " + ago(l.ToldSince.Time, l.now))
	default:
		return ""
	}
}

// finding is told once for a volume, in short; explain has the words.
func (l line) finding() string {
	if !l.first {
		return ""
	}
	var reasons []string
	for _, f := range l.Findings {
		reason := f.Reason
		if !f.Announced {
			reason += " (new)"
		}
		if !slices.Contains(reasons, reason) {
			reasons = append(reasons, reason)
		}
	}
	return commas(reasons)
}

func (l line) export() string {
	switch {
	case l.Exported == nil:
		return "?"
	case *l.Exported:
		return "on"
	default:
		return "off"
	}
}

// lines are a table's: one for each node that holds a volume.
func lines(volumes []volume, now time.Time) []line {
	var all []line
	for _, v := range volumes {
		holders := v.Holders
		if len(holders) == 0 {
			holders = []holder{{}}
		}
		for i, h := range holders {
			all = append(all, line{volume: v, holder: h, first: i == 0, now: now})
		}
	}
	return all
}

func newVolumes(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:     "volumes",
		Aliases: []string{"volume", "pvc"},
		Short:   "Who holds which volume, where and since when: cluster and array side by side",
		Long: "Who holds which volume, where and since when: the cluster's VolumeAttachments beside the array's ledger, and who uses it.\n" +
			"The arrays of the RDSDriver are asked from here, over SSH, with the key in the operator's Secret and the pinned host key. " +
			"An array that does not answer, or a disk without a ledger, shows as \"?\": not known.",
		Example: "  kubectl rds volumes -A -o wide",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return o.volumes(c.Context()) },
	}
	o.addTableFlags(c)
	return c
}

func (o *options) volumes(ctx context.Context) error {
	ctx, c, err := o.connect(ctx)
	if err != nil {
		return err
	}
	warn(o.ErrOut, c.askArrays(ctx, o.operatorNamespace))
	now := time.Now()
	var migrations []migration
	if c.kubevirt {
		if migrations, err = c.migrations(ctx, now); err != nil {
			return reason(ctx, err)
		}
	}
	all, err := c.volumes(ctx, migrations, now)
	if err != nil {
		return reason(ctx, err)
	}
	switch {
	case o.structured():
		return printRows(o, "Volume", nil, all)
	case len(all) == 0:
		o.nothing("RDS volumes", c.namespace)
		return nil
	}
	return printRows(o, "", volumeColumns(o.allNamespaces), lines(all, now))
}

// volumes tells of all volumes of the namespace, in the order of their claims.
func (c *cluster) volumes(ctx context.Context, migrations []migration, now time.Time) ([]volume, error) {
	var list corev1.PersistentVolumeList
	if err := c.cache.List(ctx, &list); err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	var all []volume
	for i := range list.Items {
		pv := &list.Items[i]
		if !c.gather.Ours(pv) || c.namespace != "" && pv.Spec.ClaimRef.Namespace != c.namespace {
			continue
		}
		v, err := c.volume(ctx, pv.Name, migrations, now)
		if err != nil {
			return nil, err
		}
		if v != nil {
			all = append(all, *v)
		}
	}
	slices.SortFunc(all, func(a, b volume) int {
		return cmp.Or(cmp.Compare(a.Metadata.Namespace, b.Metadata.Namespace), cmp.Compare(a.Metadata.Name, b.Metadata.Name), cmp.Compare(a.PV, b.PV))
	})
	return all, nil
}

// volume tells of one; nil when it is gone.
func (c *cluster) volume(ctx context.Context, pv string, migrations []migration, now time.Time) (*volume, error) {
	known, err := c.gather.Volume(ctx, pv, now)
	if known == nil || err != nil {
		return nil, err
	}
	s := known.Snapshot
	s.Limits, s.Migrating = c.unexplainedLimits(), migrating(migrations, pv)
	if s.Memory, err = attachment.Recall(ctx, c.live, known, unexplained.Decide(s).Pending); err != nil {
		return nil, err
	}
	v := compare(known)
	a := unexplained.Decide(s)
	v.addFindings(a.Standing, true)
	v.addFindings(a.Pending, false)
	return &v, nil
}

func (v *volume) addFindings(found []unexplained.Finding, announced bool) {
	for _, f := range found {
		v.Findings = append(v.Findings, finding{Reason: f.Warning(v.Metadata.Name).Reason, Message: f.Message, Announced: announced})
	}
}

// migrating lists the nodes of the migrations under way that share a volume.
func migrating(migrations []migration, pv string) []string {
	var nodes []string
	for _, m := range migrations {
		if m.underWay && slices.Contains(m.volumes, pv) {
			nodes = append(nodes, m.Source, m.Target)
		}
	}
	return nodes
}

// compare puts what the cluster says of a volume beside what the array was told.
func compare(known *gather.Volume) volume {
	s := &known.Snapshot
	v := volume{Metadata: metadata{Namespace: known.Claim.Namespace, Name: known.Claim.Name}, PV: known.Name, Slot: s.Slot,
		ArrayKnown: s.Told.Fresh() && s.Told.Ledger.Known, ArrayProblem: s.Told.Ledger.Problem, Holders: []holder{}}
	if h, err := rds.ParseHandle(known.Handle); err == nil {
		v.Array = h.Array
	}
	if v.ArrayKnown {
		v.Exported = &s.Told.Exported
	}
	told := s.Told.Ledger.Publications
	for _, a := range s.Attachments {
		h := holder{Node: a.Node, Attachment: attachmentState(a), AttachmentSince: stamp(a.Created), AttachmentError: a.Error}
		told = slices.DeleteFunc(slices.Clone(told), func(p rds.Publication) bool {
			if p.Node != rds.NodeKey(a.NodeID) {
				return false
			}
			h.Told, h.ToldSince = true, stamp(p.Since)
			return true
		})
		v.Holders = append(v.Holders, h)
	}
	for _, p := range told {
		v.Holders = append(v.Holders, holder{Node: p.Node, Told: true, ToldSince: stamp(p.Since)})
	}
	for i := range v.Holders {
		for _, p := range s.Pods {
			if p.Node == v.Holders[i].Node {
				v.Holders[i].Users = append(v.Holders[i].Users, userOf(p))
			}
		}
	}
	slices.SortFunc(v.Holders, func(a, b holder) int { return cmp.Compare(a.Node, b.Node) })
	return v
}

func attachmentState(a unexplained.Attachment) string {
	switch {
	case !a.Deleting.IsZero():
		return "Detaching"
	case a.Attached:
		return "Attached"
	default:
		return "Attaching"
	}
}

func userOf(p unexplained.Pod) user {
	u := user{Name: "pod/" + p.Name, Leaving: !p.Leaving.IsZero()}
	if p.VM != "" {
		u.Name = "vmi/" + p.VM
	}
	return u
}
