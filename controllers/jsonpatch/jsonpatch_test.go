package jsonpatch

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// TestOperations: as they are sent; nothing but a removal lacks a value.
func TestOperations(t *testing.T) {
	got, err := json.Marshal([]Operation{Version("7"), Add("/a", map[string]string{}), Replace("/b", false), Remove("/c/" + Escape("x/y~z"))})
	if err != nil {
		t.Fatal(err)
	}
	const want = `[{"op":"test","path":"/metadata/resourceVersion","value":"7"},{"op":"add","path":"/a","value":{}},` +
		`{"op":"replace","path":"/b","value":false},{"op":"remove","path":"/c/x~1y~0z"}]`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestAnswer: which answers mean that the object changed.
func TestAnswer(t *testing.T) {
	invalid := schema.GroupKind{Group: "kubevirt.io", Kind: "VirtualMachineInstance"}
	cases := map[string]struct {
		reason string
		err    error
		stale  bool
	}{
		"none":         {"It went well.", nil, false},
		"failed guard": {"What the API server makes of it (handlers/patch.go).", apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", schema.GroupResource{}, "", "testing value failed", 0, false), true},
		"conflict":     {"Somebody wrote while it was applied.", apierrors.NewConflict(schema.GroupResource{}, "web", nil), true},
		"refused value": {"Trying again changes nothing.", apierrors.NewInvalid(invalid, "web",
			field.ErrorList{field.Required(field.NewPath("status"), "")}), false},
		"refused by a webhook": {"KubeVirt's answer 422 with causes.", &apierrors.StatusError{ErrStatus: metav1.Status{Code: 422, Reason: metav1.StatusReasonInvalid,
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Message: "no"}}}}}, false},
		"forbidden": {"Nor does it here.", apierrors.NewForbidden(schema.GroupResource{}, "web", nil), false},
		"wrapped":   {"Who wraps it does not hide it.", fmt.Errorf("x: %w", apierrors.NewConflict(schema.GroupResource{}, "web", nil)), true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := Answer(tc.err)
			if errors.Is(got, ErrStale) != tc.stale || !errors.Is(got, tc.err) {
				t.Errorf("%s: %v", tc.reason, got)
			}
		})
	}
}
