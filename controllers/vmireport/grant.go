package vmireport

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/client-go/discovery"
	"k8s.io/utils/clock"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/report"
)

const (
	// EventNotGranted is the reason of the event with the missing commands.
	EventNotGranted = "VMIConditionNotGranted"

	// whileMissing is how often the grant is looked for while it is missing: two
	// access reviews, which are stored nowhere.
	whileMissing = 30 * time.Second
	// whileGranted is how often it is looked for otherwise; a refused write asks at once.
	whileGranted = 10 * time.Minute
	// refusalStands is how long the API server's refusal of a write outweighs access
	// reviews that allow it.
	refusalStands = 5 * time.Minute
	// tellAgain is how long an event lasts in a cluster by default.
	tellAgain = time.Hour
)

// constrainedSince is the first Kubernetes with constrained impersonation by default.
var constrainedSince = version.MajorMinor(1, 36)

// Grant is whether the operator may act as KubeVirt's controller, as far as known.
type Grant struct {
	reader client.Reader // uncached: asked rarely, for one object
	writer client.Writer // of reviews and events
	server discovery.ServerVersionInterfaceWithContext
	plain  bool
	clock  clock.Clock

	check   sync.Mutex // one check at a time
	mu      sync.Mutex // guards what follows
	me      account
	state   state
	refused time.Time // when a write was, though the reviews allow it
	toldAt  time.Time // when people were told last
	changed []chan event.GenericEvent
	observe func(granted bool, reason string)
	recheck chan struct{}
}

// state is what a check found. The zero state is before the first one.
type state struct {
	kubevirt corev1.ObjectReference // the KubeVirt resource; empty: not found
	granted  bool
	reason   string // why not
}

// NewGrant makes one for an API server, which server tells the version of. plain asks
// for plain impersonation, which clusters before Kubernetes 1.36 have alone, and which
// is far broader.
func NewGrant(reader client.Reader, writer client.Writer, server discovery.ServerVersionInterfaceWithContext, plain bool, c clock.Clock) *Grant {
	return &Grant{reader: reader, writer: writer, server: server, plain: plain, clock: c, recheck: make(chan struct{}, 1)}
}

// Granted gives a channel that is sent to when what was not granted is; call it before
// anybody asks for the grant, once for each who wants to know.
func (g *Grant) Granted() <-chan event.GenericEvent {
	c := make(chan event.GenericEvent, 1)
	g.changed = append(g.changed, c)
	return c
}

// Observe has f told what every check finds that differs from the last one; call it
// before anybody asks for the grant.
func (g *Grant) Observe(f func(granted bool, reason string)) { g.observe = f }

// Start checks the grant now, then slowly, and after every refused write, until ctx
// ends. It is for the leader only.
func (g *Grant) Start(ctx context.Context) error {
	for {
		interval := whileMissing
		if g.Check(ctx).granted {
			interval = whileGranted
		}
		select {
		case <-ctx.Done():
			return nil
		case <-g.clock.After(interval):
		case <-g.recheck:
		}
	}
}

// Check asks the API server whether it is granted, and tells people when that changed.
func (g *Grant) Check(ctx context.Context) state {
	g.check.Lock()
	defer g.check.Unlock()
	found := g.look(ctx)
	g.mu.Lock()
	before := g.state
	g.state = found
	changed := found != before
	g.mu.Unlock()
	if changed {
		g.tell(ctx)
		if g.observe != nil {
			g.observe(found.granted, found.reason)
		}
	}
	if changed && found.granted {
		for _, c := range g.changed {
			select {
			case c <- event.GenericEvent{Object: &corev1.ServiceAccount{}}:
			default: // one is under way already
			}
		}
	}
	return found
}

// known is the last check's finding, or a first one's.
func (g *Grant) known(ctx context.Context) state {
	g.mu.Lock()
	found := g.state
	g.mu.Unlock()
	if found == (state{}) {
		return g.Check(ctx)
	}
	return found
}

// look finds KubeVirt and asks for the rights. What cannot be asked is not granted.
func (g *Grant) look(ctx context.Context) state {
	g.mu.Lock()
	last, me, refused := g.state, g.me, g.refused
	g.mu.Unlock()
	if me.user == "" {
		var err error
		if me, err = whoAmI(ctx, g.writer); err != nil {
			return state{reason: err.Error()}
		}
		g.mu.Lock()
		g.me = me
		g.mu.Unlock()
	}
	found := state{kubevirt: last.kubevirt}
	if !last.granted {
		if found.kubevirt, found.reason = g.findKubeVirt(ctx); found.reason != "" {
			return found
		}
		if found.reason = g.tooOld(ctx); found.reason != "" {
			return found
		}
	}
	commands, err := missing(ctx, g.writer, rights(g.plain, found.kubevirt.Namespace, me))
	switch {
	case err != nil:
		found.reason = err.Error()
	case len(commands) > 0:
		g.forgetRefusal() // this is why
		found.reason = "it is not granted. What it allows is explained in config/components/vmi-condition; the commands that grant it: " +
			strings.Join(commands, "; ")
	case !refused.IsZero() && g.clock.Since(refused) < refusalStands:
		found.reason = "the API server refuses it although its access reviews allow it: it takes Kubernetes 1.36 or later with the " +
			"feature ConstrainedImpersonation, or the operator's flag --plain-impersonation"
	default:
		found.granted = true
	}
	return found
}

// tooOld asks which Kubernetes this is, as one that ignores the verbs has them bound and
// reviewed all the same. It gives the reason why it takes another.
func (g *Grant) tooOld(ctx context.Context) (reason string) {
	if g.plain {
		return ""
	}
	server, err := g.server.ServerVersionWithContext(ctx)
	if err != nil {
		return "Kubernetes' version is not known: " + err.Error()
	}
	if v, err := version.ParseGeneric(server.GitVersion); err != nil || !v.AtLeast(constrainedSince) {
		return fmt.Sprintf("this is Kubernetes %s, and it takes 1.36 or later, or the operator's flag --plain-impersonation", server.GitVersion)
	}
	return ""
}

func (g *Grant) findKubeVirt(ctx context.Context) (about corev1.ObjectReference, reason string) {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(kubevirtv1.GroupVersion.WithKind(kubevirtv1.KubeVirtGroupVersionKind.Kind + "List"))
	if err := g.reader.List(ctx, list, client.Limit(1)); err != nil {
		return about, "KubeVirt's namespace is not known: " + err.Error()
	}
	if len(list.Items) == 0 {
		return about, "KubeVirt's namespace is not known: there is no resource of kind KubeVirt"
	}
	kv := list.Items[0]
	return corev1.ObjectReference{APIVersion: kubevirtv1.GroupVersion.String(), Kind: kubevirtv1.KubeVirtGroupVersionKind.Kind,
		Namespace: kv.Namespace, Name: kv.Name, UID: kv.UID}, ""
}

// wasRefused notes that a write was refused, and has the grant checked anew.
func (g *Grant) wasRefused(ctx context.Context) state {
	g.mu.Lock()
	g.refused = g.clock.Now()
	g.mu.Unlock()
	found := g.Check(ctx)
	select {
	case g.recheck <- struct{}{}: // for the interval to follow
	default:
	}
	return found
}

func (g *Grant) forgetRefusal() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refused = time.Time{}
}

// remind tells people again what they were told too long ago to see it still.
func (g *Grant) remind(ctx context.Context) {
	g.mu.Lock()
	due := g.clock.Since(g.toldAt) >= tellAgain
	g.mu.Unlock()
	if due {
		g.tell(ctx)
	}
}

// tell logs what was found, and makes the event with the commands where
// administrators look: on the operator's service account and on KubeVirt's resource.
func (g *Grant) tell(ctx context.Context) {
	g.mu.Lock()
	found, me := g.state, g.me
	g.toldAt = g.clock.Now()
	g.mu.Unlock()
	logger := log.FromContext(ctx)
	if found.granted {
		logger.Info("conditions can be written on VMIs", "kubevirt", found.kubevirt.Namespace)
		return
	}
	logger.Info("conditions cannot be written on VMIs, annotations stand in for them", "reason", found.reason)
	e := dualattach.Event{Type: corev1.EventTypeWarning, Reason: EventNotGranted, Step: found.reason,
		Message: "Conditions cannot be written on VMIs, annotations stand in for them: " + found.reason}
	for _, about := range places(me, found.kubevirt) {
		if _, err := report.Event(ctx, g.writer, e, about, about.UID, g.clock.Now()); err != nil {
			logger.Error(err, "nobody is told but here")
		}
	}
}

// places are the objects that bear the event.
func places(me account, kubevirt corev1.ObjectReference) []corev1.ObjectReference {
	var all []corev1.ObjectReference
	if about, ok := me.reference(); ok {
		all = append(all, about)
	}
	if kubevirt.Name != "" {
		all = append(all, kubevirt)
	}
	return all
}

// where names those places, for a message.
func (g *Grant) where() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var names []string
	for _, about := range places(g.me, g.state.kubevirt) {
		names = append(names, about.Kind+" "+about.Namespace+"/"+about.Name)
	}
	if len(names) == 0 {
		return "the operator's log"
	}
	return "the events of " + strings.Join(names, " and ")
}
