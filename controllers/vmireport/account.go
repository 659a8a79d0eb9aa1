package vmireport

import (
	"context"
	"fmt"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// account is who the operator is to the API server.
type account struct {
	user            string
	namespace, name string // of the service account; empty for another kind of user
	uid             types.UID
}

// whoAmI asks the API server, which knows it whatever the token's origin.
func whoAmI(ctx context.Context, c client.Writer) (account, error) {
	var review authenticationv1.SelfSubjectReview
	if err := c.Create(ctx, &review); err != nil {
		return account{}, fmt.Errorf("ask the API server who this is: %w", err)
	}
	me := account{user: review.Status.UserInfo.Username, uid: types.UID(review.Status.UserInfo.UID)}
	if rest, ok := strings.CutPrefix(me.user, "system:serviceaccount:"); ok {
		me.namespace, me.name, _ = strings.Cut(rest, ":")
	}
	return me, nil
}

// subject is how kubectl's create rolebinding names the account.
func (a account) subject() string {
	if a.name == "" {
		return "--user=" + a.user
	}
	return fmt.Sprintf("--serviceaccount=%s:%s", a.namespace, a.name)
}

// reference is what an event about the account is about; ok is false where there is
// no object for it.
func (a account) reference() (about corev1.ObjectReference, ok bool) {
	return corev1.ObjectReference{APIVersion: "v1", Kind: "ServiceAccount", Namespace: a.namespace, Name: a.name, UID: a.uid}, a.name != ""
}
