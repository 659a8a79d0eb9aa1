package watch

import (
	"context"
	"fmt"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Store is a view of the objects of one kind. The objects are shared: copy
// before changing one.
type Store[T client.Object] struct{ store cache.Store }

// List is all objects.
func (s *Store[T]) List() []T {
	items := s.store.List()
	objects := make([]T, len(items))
	for i, item := range items {
		objects[i] = item.(T)
	}
	return objects
}

// Get is one object.
func (s *Store[T]) Get(key client.ObjectKey) (T, bool) {
	name := key.Name
	if key.Namespace != "" {
		name = key.Namespace + "/" + key.Name
	}
	item, ok, err := s.store.GetByKey(name)
	if err != nil || !ok {
		var none T
		return none, false
	}
	return item.(T), true
}

// Start begins to watch and returns when the view is complete. changed is
// called for every object that appears, changes or vanishes, until ctx ends.
func Start[T client.Object](ctx context.Context, c client.WithWatch, fieldSelector string, object T, list client.ObjectList, changed func(T)) (*Store[T], error) {
	// The reflector complains to klog; whoever waits for the view gets an error,
	// and later troubles pass or end the lab.
	quiet := logr.Discard()
	store, controller := cache.NewInformerWithOptions(cache.InformerOptions{
		Logger:        &quiet,
		ListerWatcher: listerWatcher(c, fieldSelector, list),
		ObjectType:    object,
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { changed(o.(T)) },
			UpdateFunc: func(_, o any) { changed(o.(T)) },
			DeleteFunc: func(o any) {
				if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
					o = gone.Obj
				}
				if object, ok := o.(T); ok {
					changed(object)
				}
			},
		},
	})
	go controller.RunWithContext(ctx)
	if !cache.WaitForCacheSync(ctx.Done(), controller.HasSynced) {
		return nil, fmt.Errorf("no view of %T: %w", object, context.Cause(ctx))
	}
	return &Store[T]{store: store}, nil
}

func listerWatcher(c client.WithWatch, fieldSelector string, list client.ObjectList) *cache.ListWatch {
	raw := func(options metav1.ListOptions) *client.ListOptions {
		options.FieldSelector = fieldSelector
		return &client.ListOptions{Raw: &options}
	}
	fresh := func() client.ObjectList { return list.DeepCopyObject().(client.ObjectList) }
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			into := fresh()
			return into, c.List(ctx, into, raw(options))
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (apiwatch.Interface, error) {
			return c.Watch(ctx, fresh(), raw(options))
		},
	}
}
