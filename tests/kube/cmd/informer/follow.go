package main

import (
	"context"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// startInformer runs a shared informer until ctx is done, and returns what asks its store.
func startInformer(ctx context.Context, config *rest.Config, options options, journal *journal) (func() []any, error) {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	factory := dynamicinformer.NewFilteredDynamicSharedInformerFactory(client, 0, options.namespace, nil)
	informer := factory.ForResource(options.resource).Informer()
	handlers := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { journal.event(typeAdded, object, nil) },
		UpdateFunc: func(previous, object any) { journal.event(typeModified, object, previous) },
		DeleteFunc: func(object any) {
			kind := typeDeleted
			if _, missed := object.(cache.DeletedFinalStateUnknown); missed {
				kind = typeMissed
			}
			journal.event(kind, object, nil)
		},
	}
	registration, err := informer.AddEventHandler(handlers)
	if err != nil {
		return nil, err
	}
	go informer.RunWithContext(ctx)
	go func() {
		if cache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
			journal.write(record{Type: typeSynced})
		}
	}()
	return informer.GetStore().List, nil
}

// startReflector runs a reflector until ctx is done, and returns what asks its store.
func startReflector(ctx context.Context, config *rest.Config, options options, journal *journal) (func() []any, error) {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	resource := client.Resource(options.resource).Namespace(options.namespace)
	source := cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			return resource.List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			return resource.Watch(ctx, options)
		},
	}, client)
	store := &recordingStore{Store: cache.NewStore(cache.DeletionHandlingMetaNamespaceKeyFunc), journal: journal}
	reflector := cache.NewReflectorWithOptions(source, &unstructured.Unstructured{}, store, cache.ReflectorOptions{})
	go reflector.RunWithContext(ctx)
	return store.List, nil
}

// recordingStore tells the journal what a reflector puts into it.
type recordingStore struct {
	cache.Store
	journal *journal
	synced  bool
}

func (s *recordingStore) Add(object any) error {
	s.journal.event(typeAdded, object, s.known(object))
	return s.Store.Add(object)
}

func (s *recordingStore) Update(object any) error {
	s.journal.event(typeModified, object, s.known(object))
	return s.Store.Update(object)
}

func (s *recordingStore) Delete(object any) error {
	s.journal.event(typeDeleted, object, s.known(object))
	return s.Store.Delete(object)
}

func (s *recordingStore) Replace(objects []any, resourceVersion string) error {
	s.journal.write(record{Type: typeReplaced, ResourceVersion: resourceVersion, Objects: objects})
	if err := s.Store.Replace(objects, resourceVersion); err != nil {
		return err
	}
	if !s.synced {
		s.synced = true
		s.journal.write(record{Type: typeSynced})
	}
	return nil
}

// known is what the store has of an object, or nil.
func (s *recordingStore) known(object any) any {
	known, _, err := s.Get(object)
	if err != nil {
		return nil
	}
	return known
}

// versionOf is an object's resourceVersion, or empty for what has none.
func versionOf(object any) string {
	if unknown, is := object.(cache.DeletedFinalStateUnknown); is {
		object = unknown.Obj
	}
	accessor, err := meta.Accessor(object)
	if err != nil {
		return ""
	}
	return accessor.GetResourceVersion()
}
