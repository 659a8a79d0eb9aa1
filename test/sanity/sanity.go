package sanity

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	csisanity "github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
	"github.com/onsi/gomega"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// NotOffered are the specs that skip themselves because this driver does not
// offer what they test, by a part of their names, and the reasons.
func NotOffered() map[string]string {
	return map[string]string{
		"[GroupController":       "group snapshots are not offered: RouterOS cannot snapshot several subvolumes at one moment",
		"ModifyVolume [":         "nothing about a volume can be modified: there is no VolumeAttributesClass for this driver",
		"volume attribute class": "as above",
		"should fail when publishing more volumes than the node max attach limit": "kube-scheduler keeps to max_volumes_per_node; the array has no such limit",
		"should fail when the volume is already published but is incompatible":    "the suite publishes read-only, which is not supported",
		"should succeed when creating a snapshot with accessibility requirements": "a snapshot is usable wherever its array is; SNAPSHOT_ACCESSIBILITY_CONSTRAINTS is not offered",
		"should detect volumes added between pages":                               "pending in csi-test itself",
	}
}

// NoNode are the specs that need more of a node than its name, for suites
// without a node plugin.
func NoNode() map[string]string {
	return map[string]string{"Node Service": "no node plugin here; the test over real NVMe/TCP runs them with one"}
}

// NewConfig sets the suite up for a controller and a node plugin, which may be one
// address. Volumes are of size bytes.
func NewConfig(controller, node string, size int64) *csisanity.TestConfig {
	c := csisanity.NewTestConfig()
	c.Address, c.ControllerAddress = node, controller
	c.TestVolumeSize, c.TestVolumeExpandSize = size, 2*size
	c.IdempotentCount = 3
	c.ControllerDialOptions = append(c.ControllerDialOptions, grpc.WithUnaryInterceptor(asProvisioner))
	return &c
}

// patience is how long a creation may stay under way.
const patience = time.Minute

// asProvisioner asks again for a volume that is under way, as csi-provisioner
// does: on arrays that copy, one made of a snapshot is not there at once.
func asProvisioner(ctx context.Context, method string, request, answer any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	deadline := time.Now().Add(patience)
	for {
		err := invoke(ctx, method, request, answer, conn, opts...)
		if !strings.HasSuffix(method, "/CreateVolume") || status.Code(err) != codes.Aborted || time.Now().After(deadline) {
			return err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Run runs the suite on each of the named set-ups, once in a process. It fails on
// any failed spec, on one that is skipped and not written in skips, and on a
// written skip that skips nothing.
func Run(t *testing.T, setups map[string]*csisanity.TestConfig, skips ...map[string]string) {
	t.Helper()
	var contexts []*csisanity.TestContext
	for _, name := range slices.Sorted(maps.Keys(setups)) {
		ginkgo.Describe(name, func() { contexts = append(contexts, csisanity.GinkgoTest(setups[name])) })
	}
	var report types.Report
	ginkgo.ReportAfterSuite("keep the report", func(r ginkgo.Report) { report = r })
	gomega.RegisterFailHandler(ginkgo.Fail)
	suite, reporter := ginkgo.GinkgoConfiguration()
	written := map[string]string{}
	for _, some := range skips {
		maps.Copy(written, some)
	}
	if _, none := written["Node Service"]; none {
		suite.SkipStrings = append(suite.SkipStrings, " Node Service ")
	}
	reporter.Succinct = true
	ginkgo.RunSpecs(t, "csi-sanity", suite, reporter)
	for _, c := range contexts {
		c.Finalize()
	}
	count(t, report, written)
}

// count compares what was skipped with what may be.
func count(t *testing.T, report types.Report, written map[string]string) {
	t.Helper()
	ran, failed, skipped := 0, 0, map[string]int{}
	total := 0
	for _, spec := range report.SpecReports {
		if spec.LeafNodeType != types.NodeTypeIt {
			continue
		}
		total++
		switch spec.State {
		case types.SpecStatePassed:
			ran++
		case types.SpecStateSkipped, types.SpecStatePending:
			key := why(spec.FullText(), written)
			skipped[key]++
			if key == "" {
				t.Errorf("skipped without a written reason: %s (%s)", spec.FullText(), spec.Failure.Message)
			}
		default:
			ran++
			failed++
		}
	}
	sum := 0
	for part, reason := range written {
		sum += skipped[part]
		if skipped[part] == 0 {
			t.Errorf("nothing was skipped for %q; take it off the list", part)
		}
		t.Logf("skipped %d × %q: %s", skipped[part], part, reason)
	}
	t.Logf("csi-sanity: ran %d of %d specs, %d failed, %d skipped as written", ran, total, failed, sum)
	if total == 0 || failed > 0 || ran != total-sum {
		t.Errorf("ran %d of %d specs with %d written skips, %d failed", ran, total, sum, failed)
	}
}

func why(text string, written map[string]string) string {
	for _, part := range slices.Sorted(maps.Keys(written)) {
		if strings.Contains(text, part) {
			return part
		}
	}
	return ""
}
