package handler

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// migrationPorts are what a target listens on: libvirt's and the blocks'.
var migrationPorts = map[string]int{"41049": 0, "41050": 49152, "41051": 49215}

// syncMigration takes a migration that virt-controller handed over one step
// further. acted says that it wrote, so that vmi is stale.
func (h *Handlers) syncMigration(ctx context.Context, vmi *kubevirtv1.VirtualMachineInstance) (again time.Duration, acted bool, err error) {
	state := vmi.Status.MigrationState
	if state == nil || state.MigrationUID == "" {
		return 0, false, nil
	}
	m := move{h: h, ctx: ctx, vmi: vmi, state: state, source: h.node(state.SourceNode), target: h.node(state.TargetNode)}
	if state.EndTimestamp != nil && (state.Completed || state.Failed) {
		return m.cleanUp()
	}
	if state.AbortRequested && state.StartTimestamp != nil && state.EndTimestamp == nil && !m.course().IgnoreAbort {
		return 0, true, m.abort()
	}
	return m.advance()
}

// move is one look at one migration.
type move struct {
	h              *Handlers
	ctx            context.Context
	vmi            *kubevirtv1.VirtualMachineInstance
	state          *kubevirtv1.VirtualMachineInstanceMigrationState
	source, target *node // nil if dead
}

func (m move) course() Course {
	m.h.mu.Lock()
	defer m.h.mu.Unlock()
	return m.h.run(m.state.MigrationUID, key(m.vmi)).course
}

// step is the next step of a migration that is not over.
func (m move) step(course Course) Step {
	s := m.state
	switch {
	case s.TargetNodeAddress == "":
		return Prepare
	case s.StartTimestamp == nil:
		return Start
	case s.EndTimestamp == nil && course.PostCopy && s.Mode != kubevirtv1.MigrationPostCopy:
		return GoPostCopy
	case s.EndTimestamp == nil:
		return Switch
	default:
		return Complete
	}
}

func (m move) advance() (again time.Duration, acted bool, err error) {
	step := m.step(m.course())
	if step == Switch && !m.state.TargetNodeDomainDetected {
		// The target's domain appears soon after the copying has begun.
		return 0, true, m.write(m.target, func(s *kubevirtv1.VirtualMachineInstanceMigrationState) { s.TargetNodeDomainDetected = true })
	}
	course, open, wait := m.h.gate(m.state.MigrationUID, key(m.vmi), step)
	switch {
	case !open:
		return wait, false, nil
	case course.FailAt == step:
		return 0, true, m.fail(step, course)
	}
	return 0, true, m.take(step)
}

func (m move) write(n *node, change func(*kubevirtv1.VirtualMachineInstanceMigrationState)) error {
	return m.h.write(m.ctx, n, m.vmi, func(vmi *kubevirtv1.VirtualMachineInstance) { change(vmi.Status.MigrationState) })
}

// take takes a step, as the handler of the node that takes it.
func (m move) take(step Step) error {
	now := metav1.Now()
	switch step {
	case Prepare:
		return m.write(m.target, func(s *kubevirtv1.VirtualMachineInstanceMigrationState) {
			s.TargetNodeAddress = m.target.ip
			s.TargetDirectMigrationNodePorts = migrationPorts
		})
	case Start:
		return m.write(m.source, func(s *kubevirtv1.VirtualMachineInstanceMigrationState) {
			s.StartTimestamp = &now
			s.Mode = kubevirtv1.MigrationPreCopy
		})
	case GoPostCopy:
		return m.write(m.source, func(s *kubevirtv1.VirtualMachineInstanceMigrationState) { s.Mode = kubevirtv1.MigrationPostCopy })
	case Switch:
		if m.state.TargetNodeDomainReadyTimestamp == nil {
			return m.write(m.target, func(s *kubevirtv1.VirtualMachineInstanceMigrationState) { s.TargetNodeDomainReadyTimestamp = &now })
		}
		return m.h.write(m.ctx, m.target, m.vmi, m.switchOver)
	default: // Complete
		return m.write(m.target, func(s *kubevirtv1.VirtualMachineInstanceMigrationState) { s.Completed = true })
	}
}

// switchOver is what the target's handler writes when the VM runs there.
func (m move) switchOver(vmi *kubevirtv1.VirtualMachineInstance) {
	now := metav1.Now()
	vmi.Status.MigrationState.EndTimestamp = &now
	vmi.Status.NodeName = m.state.TargetNode
	vmi.Labels[kubevirtv1.NodeNameLabel] = m.state.TargetNode
	delete(vmi.Labels, kubevirtv1.OutdatedLauncherImageLabel)
	delete(vmi.Annotations, kubevirtv1.EvictionSourceAnnotation)
	vmi.Status.EvacuationNodeName = ""
	vmi.Status.LauncherContainerImageVersion = ""
	vmi.Status.MigrationTransport = kubevirtv1.MigrationTransportUnix
}

// fail makes a step fail.
func (m move) fail(step Step, course Course) error {
	if step == Prepare {
		// virt-controller sees that the target is down and writes the rest.
		exitLaunchers(m.target, m.vmi, m.state.TargetPod, true)
		return nil
	}
	now := metav1.Now()
	return m.h.write(m.ctx, m.source, m.vmi, func(vmi *kubevirtv1.VirtualMachineInstance) {
		s := vmi.Status.MigrationState
		s.Failed, s.FailureReason, s.EndTimestamp = true, course.reason(), &now
		if s.Mode == kubevirtv1.MigrationPostCopy {
			// Half of the memory is on either side: nothing is left to run.
			s.Completed = true
			setPhase(vmi, kubevirtv1.Failed)
		}
	})
}

// abort is what the source's handler does when virt-controller asks for it.
func (m move) abort() error {
	if m.state.AbortStatus == "" {
		return m.write(m.source, func(s *kubevirtv1.VirtualMachineInstanceMigrationState) {
			s.AbortStatus = kubevirtv1.MigrationAbortInProgress
		})
	}
	now := metav1.Now()
	return m.write(m.source, func(s *kubevirtv1.VirtualMachineInstanceMigrationState) {
		s.AbortStatus = kubevirtv1.MigrationAbortSucceeded
		s.Failed, s.FailureReason, s.EndTimestamp = true, "Live migration aborted", &now
	})
}

// cleanUp ends the launcher that lost the VM and then, as the target's handler,
// drops the label that made the VMI its business.
func (m move) cleanUp() (again time.Duration, acted bool, err error) {
	if m.state.Failed {
		exitLaunchers(m.target, m.vmi, m.state.TargetPod, m.course().FailAt == Prepare)
	} else if m.vmi.Status.NodeName == m.state.TargetNode {
		course, open, wait := m.h.gate(m.state.MigrationUID, key(m.vmi), Leave)
		again = wait
		if open {
			// By name: the next migration's target may be there already.
			exitLaunchers(m.source, m.vmi, m.state.SourcePod, course.FailAt == Leave)
		}
	}
	if m.vmi.Labels[kubevirtv1.MigrationTargetNodeNameLabel] != m.state.TargetNode {
		return again, false, nil
	}
	return again, true, m.h.write(m.ctx, m.target, m.vmi, func(vmi *kubevirtv1.VirtualMachineInstance) {
		delete(vmi.Labels, kubevirtv1.MigrationTargetNodeNameLabel)
	})
}
