package main

import (
	"log"
	"reflect"

	admissionv1 "k8s.io/api/admission/v1"
	admissionv1beta1 "k8s.io/api/admission/v1beta1"
	imagepolicyv1alpha1 "k8s.io/api/imagepolicy/v1alpha1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
)

// anyGroup is where kinds of metav1 are listed that every group version has.
const anyGroup = "*"

// newScheme knows every kind that is served in protobuf somewhere.
func newScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientscheme.AddToScheme,
		admissionv1.AddToScheme,
		admissionv1beta1.AddToScheme,
		imagepolicyv1alpha1.AddToScheme,
		apiextensionsv1.AddToScheme,
		metav1.AddMetaToScheme,
	} {
		if err := add(scheme); err != nil {
			log.Fatal(err)
		}
	}
	metav1.AddToGroupVersion(scheme, metav1.Unversioned)
	return scheme
}

// table is the file that the transcoder reads.
type table struct {
	// Kinds maps apiVersion and kind to an index into Messages.
	Kinds map[string]map[string]int `json:"kinds"`
	// Messages are name, form and fields of each message.
	Messages []message `json:"messages"`
}

func describe(scheme *runtime.Scheme) table {
	builder := &builder{index: map[reflect.Type]int{}}
	kinds := map[string]map[string]int{}
	for kind, goType := range sorted(scheme.AllKnownTypes()) {
		if kind.Version == runtime.APIVersionInternal || !isMessage(goType) {
			continue
		}
		version := kind.GroupVersion().String()
		if everywhere(goType) {
			version = anyGroup
		}
		if kinds[version] == nil {
			kinds[version] = map[string]int{}
		}
		kinds[version][kind.Kind] = builder.message(goType)
	}
	return table{Kinds: kinds, Messages: builder.messages}
}

// everywhere says whether AddToGroupVersion registers the type in every group version.
func everywhere(goType reflect.Type) bool {
	for _, one := range []any{
		metav1.WatchEvent{}, metav1.ListOptions{}, metav1.GetOptions{}, metav1.DeleteOptions{},
		metav1.CreateOptions{}, metav1.UpdateOptions{}, metav1.PatchOptions{},
	} {
		if goType == reflect.TypeOf(one) {
			return true
		}
	}
	return false
}
