package vmicondition

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	testclock "k8s.io/utils/clock/testing"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/jsonpatch"
)

// TestWrite: what each answer means, and that one guarded PATCH of the VMI, as
// KubeVirt's controller, is all that is ever sent.
func TestWrite(t *testing.T) {
	late := Condition{StorageMigrationTimedOut, corev1.ConditionTrue, "DualAttached", "too long"}
	const request = "PATCH /apis/kubevirt.io/v1/namespaces/shop/virtualmachineinstances/web as " +
		"system:serviceaccount:virt:kubevirt-controller application/json-patch+json"
	cases := map[string]struct {
		reason string
		vmi    *kubevirtv1.VirtualMachineInstance
		args   Condition
		code   int
		answer any
		want   Result
		stale  bool
		err    bool
		sent   []string
	}{
		"stored":               {"The answer shows it.", web(), late, 200, web(since(StorageMigrationTimedOut, "True", "DualAttached")), Stored, false, false, []string{request}},
		"reverted":             {"200 is not enough.", web(), late, 200, web(), Reverted, false, false, []string{request}},
		"carried":              {"There is nothing to do.", web(since(StorageMigrationTimedOut, "True", "DualAttached")), late, 0, nil, Stored, false, false, nil},
		"forbidden":            {"The grant is missing.", web(), late, 403, status(403, metav1.StatusReasonForbidden), Forbidden, false, false, []string{request}},
		"a guard did not hold": {"The API server says 422 for that.", web(), late, 422, status(422, metav1.StatusReasonInvalid), "", true, true, []string{request}},
		"conflict":             {"Or 409.", web(), late, 409, status(409, metav1.StatusReasonConflict), "", true, true, []string{request}},
		"gone":                 {"That is an error for the caller to know.", web(), late, 404, status(404, metav1.StatusReasonNotFound), "", false, true, []string{request}},
		"foreign type":         {"Nothing is sent.", web(), Condition{Status: corev1.ConditionTrue}, 0, nil, "", false, true, nil},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var sent []string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if !strings.HasPrefix(string(body), `[{"op":"test","path":"/metadata/resourceVersion","value":"7"},`) {
					t.Errorf("not guarded: %s", body)
				}
				sent = append(sent, r.Method+" "+r.RequestURI+" as "+r.Header.Get("Impersonate-User")+" "+r.Header.Get("Content-Type"))
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(tc.code)
				_ = json.NewEncoder(w).Encode(tc.answer)
			}))
			defer server.Close()
			writer, err := NewWriter(&rest.Config{Host: server.URL}, "virt", testclock.NewFakePassiveClock(noon))
			if err != nil {
				t.Fatal(err)
			}
			_, got, err := writer.Write(t.Context(), tc.vmi, tc.args)
			if got != tc.want || (err != nil) != tc.err || errors.Is(err, jsonpatch.ErrStale) != tc.stale {
				t.Errorf("%s: %q, %v", tc.reason, got, err)
			}
			if diff := cmp.Diff(tc.sent, sent); diff != "" {
				t.Errorf("sent (-want +got):\n%s", diff)
			}
		})
	}
}

func status(code int32, reason metav1.StatusReason) metav1.Status {
	return metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Code: code, Reason: reason}
}
