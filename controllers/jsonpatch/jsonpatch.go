package jsonpatch

import (
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Operation is one step of a JSON patch.
type Operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// Test is a guard: unless the value is there, the whole patch does nothing.
func Test(path string, value any) Operation { return Operation{Op: "test", Path: path, Value: value} }

// Version is the guard that an object is still the one that was read.
func Version(resourceVersion string) Operation {
	return Test("/metadata/resourceVersion", resourceVersion)
}

// Add adds a member or an element.
func Add(path string, value any) Operation { return Operation{Op: "add", Path: path, Value: value} }

// Replace replaces what is there.
func Replace(path string, value any) Operation {
	return Operation{Op: "replace", Path: path, Value: value}
}

// Remove removes what is there.
func Remove(path string) Operation { return Operation{Op: "remove", Path: path} }

// Escape makes a name one part of a path (RFC 6901).
func Escape(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}

// ErrStale says that the object changed since it was read: read it again and decide anew.
var ErrStale = errors.New("the object changed meanwhile")

// Answer makes the error of a patch an ErrStale as well where its guard did not
// hold. The API server answers 422 for a patch that cannot be applied, and 422 with
// causes for a result that it or a webhook refuses; only the former is worth another
// look at once.
func Answer(err error) error {
	if apierrors.IsConflict(err) || (apierrors.IsInvalid(err) && !hasCauses(err)) {
		return fmt.Errorf("%w: %w", ErrStale, err)
	}
	return err
}

func hasCauses(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return false
	}
	details := status.Status().Details
	return details != nil && len(details.Causes) > 0
}
